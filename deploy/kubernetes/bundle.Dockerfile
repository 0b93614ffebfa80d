# A bundle as an image, so that pods get it from where they get their other images:
#   docker build --file deploy/kubernetes/bundle.Dockerfile --tag genrec-bundle:demo bundles/demo
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}
COPY . /bundle
USER 10001:10001
CMD ["ls", "/bundle"]
