#!/bin/sh
# Make Baton's namespace if there is none, and keep its closed workflows as long as the embedded server does.
# TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE come from the environment; the worker registers the search attributes.
set -eu

until temporal operator cluster health; do sleep 2; done
if temporal operator namespace describe >/dev/null 2>&1; then
  temporal operator namespace update --retention "$RETENTION"
else
  temporal operator namespace create --retention "$RETENTION"
fi
