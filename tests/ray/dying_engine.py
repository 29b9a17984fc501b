"""Answers lines as `pagesift generate --jsonl -` does, and dies where the prompt asks for it."""

import json
import os
import signal
import sys
import time

for text in sys.stdin:
    line = json.loads(text)
    if "POISON" in line["prompt"]:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.002)
    answer = {"row": line["row"], "text": line["prompt"][::-1], "ids": [1, 2], "finish": "length"}
    print(json.dumps(answer), flush=True)
