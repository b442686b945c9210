"""Where workflows meet the outside: each module adapts one outside party; every effect goes through the ledger."""
