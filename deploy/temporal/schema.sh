#!/bin/sh
# Bring Temporal's two databases to the schema of this version; run at each start, which also covers an upgrade.
# SQL_PASSWORD comes from the environment.
set -eu

tool() {
  database=$1
  shift
  temporal-sql-tool --plugin postgres12 --ep postgres -p 5432 -u temporal --db "$database" "$@"
}

newest() {
  if ! said=$(tool "$1" update-schema -d "$2" 2>&1); then
    case $said in
      # Only a new database is set up: on another one that would set its recorded version back.
      *schema_version*"does not exist"*) tool "$1" setup-schema -v 0.0 && tool "$1" update-schema -d "$2" ;;
      *) echo "$said" >&2 && exit 1 ;;
    esac
  fi
}

newest temporal /etc/temporal/schema/postgresql/v12/temporal/versioned
newest temporal_visibility /etc/temporal/schema/postgresql/v12/visibility/versioned
