# Runs in the VM: python3 NAME.py [ARGS]; what it writes to /out comes back.
mkdir -p /out; cd /in; exec python3 -u "$@"
