"""How long things take: measured in child processes, side by side, against what the machine can do."""
