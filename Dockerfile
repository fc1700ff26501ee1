# The caption server, its models inside: docker build -t captioner . && docker run -p 8000:8000 captioner
# It needs no root, and no disk but a /tmp: docker run --read-only --tmpfs /tmp --cap-drop ALL -p 8000:8000 captioner
FROM python:3.11-slim-bookworm AS export

# The registry's torch for Linux is built for CUDA; this index has the CPU build of the same version.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /src
ENV PYTHONDONTWRITEBYTECODE=1
COPY requirements.txt requirements-serve.txt ./
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -r requirements.txt
COPY captioner captioner
COPY service service
# Torch is needed here alone: what runs the models afterwards reads their graphs.
RUN python -m captioner.cli export words phones

FROM python:3.11-slim-bookworm AS build

# Speech brings espeak-ng, which is under the GPL-3; --build-arg SPEECH= leaves it out.
ARG SPEECH=-speech

WORKDIR /src
COPY requirements-serve.txt requirements-speech.txt ./
# Without pip and setuptools, which nobody needs afterwards.
RUN python -m venv --without-pip /opt/captioner \
    && pip --python /opt/captioner/bin/python install --no-cache-dir -r "requirements${SPEECH:--serve}.txt" \
    && pip install --no-cache-dir setuptools==84.2.1
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY --from=export /src/captioner captioner
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/captioner/bin/python install --no-cache-dir --no-deps /wheels/captioner-*.whl

FROM python:3.11-slim-bookworm
RUN useradd --no-log-init --no-create-home --uid 10001 captioner
COPY --from=build /opt/captioner /opt/captioner
# ONNX Runtime would report to its maker.
ENV PATH=/opt/captioner/bin:$PATH PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1
# By number, so that Kubernetes can tell that it is not root.
USER 10001:10001

EXPOSE 8000
HEALTHCHECK --start-period=60s --interval=10s --timeout=5s CMD ["python", "-Ic", "\
import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); \
c.request('GET', '/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
# Requests in hand are finished before it ends.
STOPSIGNAL SIGTERM
ENTRYPOINT ["captioner"]
CMD ["serve", "--host", "0.0.0.0"]
