"""What several tests share. Importing it makes ocean-lib usable, unmodified, on Python 3.11 and later."""

import enforce_typing

# Its decorator calls isinstance(x, typing.Any), which raises TypeError from Python 3.11 on. Every module of ocean_lib
# takes it by name when it is imported, hence before the first such import.
enforce_typing.enforce_types = lambda function: function
