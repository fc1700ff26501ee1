# The caption server, with its model inside: docker build -t captioner . && docker run -p 8000:8000 captioner
FROM python:3.11-slim

# The registry's torch for Linux is built for CUDA; this index has the CPU build of the same version.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /app
COPY requirements.txt ./
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -r requirements.txt
COPY . .
RUN pip install --no-cache-dir --no-deps . \
    && useradd --create-home --uid 10001 captioner
USER captioner

EXPOSE 8000
HEALTHCHECK --start-period=30s --interval=15s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/ready', timeout=3)"]
CMD ["captioner", "serve", "--host", "0.0.0.0"]
