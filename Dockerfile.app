# What an application's own build is handed beside the production image that it starts from: pip, which
# those lack, the scripts that install, and the launcher of a job of several nodes. The application's
# Dockerfile is in its folder, or derived: `invoke app --dir DIR --show-dockerfile` prints it.
ARG DEV=dev

FROM ${DEV} AS dev

FROM scratch AS tools
# As a wheel it runs where it lies, by the Python of whoever mounts it; Debian's reads Debian's certificates.
COPY --from=dev /usr/share/python-wheels/pip-*.whl /etc/ssl/certs/ca-certificates.crt /
COPY --chmod=0755 tools launch /
