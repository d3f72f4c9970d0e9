# `app`: web server, workers, scheduler and commands. `store`: an S3 server to try it with. Neither
# holds a secret, and both run as a user without rights. How they are put together: docker-compose.yml.

FROM python:3.11-slim-bookworm AS packages
WORKDIR /build
RUN python -m venv /opt/venv
COPY requirements-torch-cpu.txt requirements-torch.txt requirements-cuda.txt requirements.txt ./
# As `make install` does: without CUDA where the index has such a build.
RUN /opt/venv/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements-torch-cpu.txt \
    || /opt/venv/bin/pip install --no-cache-dir --require-hashes --no-deps \
       -r requirements-torch.txt -r requirements-cuda.txt
RUN /opt/venv/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements.txt

FROM python:3.11-slim-bookworm AS app
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
ENV TECHLIFE_MODE=production TECHLIFE_DATA_DIR=/data
# One thread a process: results depend on it, and there are processes enough.
ENV OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
WORKDIR /app
COPY --from=packages /opt/venv /opt/venv
COPY manage.py celery_app.py gunicorn.conf.py LICENSE NOTICE ./
COPY templates templates
COPY static static
COPY federated federated
COPY envoys envoys
COPY diagnoses diagnoses
COPY training training
COPY inference inference
COPY publichealth publichealth
COPY techlife techlife
# Static files need settings, and these need keys: some that nobody keeps.
RUN key="$(python -c 'import secrets; print(secrets.token_urlsafe(48))')" \
    && SECRET_KEY="$key" TECHLIFE_FIELD_KEY="$key" TECHLIFE_NAME_INDEX_KEY="$key" \
       DATABASE_URL=postgres://none/none REDIS_URL=redis://none/0 \
       python manage.py collectstatic --no-input --verbosity 0
RUN mkdir --mode=700 /data && chown 10001:10001 /data
USER 10001:10001
VOLUME /data
EXPOSE 8000
CMD ["gunicorn", "techlife.wsgi:application", "--bind", "0.0.0.0:8000"]

FROM python:3.11-slim-bookworm AS store
COPY requirements-store.txt ./
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements-store.txt
RUN mkdir --mode=700 /data && chown 10001:10001 /data
USER 10001:10001
VOLUME /data
EXPOSE 9000
CMD ["juicefs", "gateway", "sqlite3:///data/meta.db", "0.0.0.0:9000", "--multi-buckets", "--keep-etag", "--no-usage-report"]
