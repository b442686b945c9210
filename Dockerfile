# Baton without its embedded parts: web, worker and migrations, for docker-compose.yml.
FROM python:3.11.13-slim-bookworm AS build
WORKDIR /baton
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir uv==0.13.9
COPY pyproject.toml uv.lock README.md ./
RUN uv sync --frozen --no-dev --no-install-project
COPY . .
RUN uv sync --frozen --no-dev

FROM python:3.11.13-slim-bookworm
RUN useradd --system --create-home --home-dir /home/baton baton
COPY --from=build /baton /baton
USER baton
WORKDIR /home/baton
ENV PATH=/baton/.venv/bin:$PATH PYTHONUNBUFFERED=1 BATON_HOST=0.0.0.0 BATON_DATA_DIR=/home/baton/var
EXPOSE 8000
CMD ["baton", "web"]
