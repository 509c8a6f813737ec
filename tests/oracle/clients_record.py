"""Runs sockopt.py and genl.py, clients that know nothing of the bench, on the kernel."""
import subprocess
for n in ('sockopt', 'genl'): subprocess.run(f'cd /in; ip link set lo up; modprobe -a ip_vs; python3 {n}.py > /out/{n}.jsonl', shell=True, check=True)
