"""Replays recorded command lines with other programs than they were recorded with: golden.py PROGRAMS RECORDING...
PROGRAMS: a folder with ipvsadm, ipvsadm-save, ipvsadm-restore. Writes /out/NAME.jsonl: exit code, stdout and stderr of each."""
import json, os, subprocess, sys
for path in sys.argv[2:]:
    name = os.path.basename(path); out = open('/out/' + name, 'w'); group = None
    for line in open(path):
        row = json.loads(line)
        if row['group'] != group: subprocess.run([sys.argv[1] + '/ipvsadm', '-C']); group = row['group']
        p = subprocess.run([sys.argv[1] + '/' + row['tool']] + row['argv'], input=row['stdin'] or '', capture_output=True, text=True)
        out.write(json.dumps(dict(row, rc=p.returncode, stdout=p.stdout, stderr=p.stderr)) + '\n')
