"""What every worker imports, imported once: workers are forked from a process that holds it and never touched a GPU.

A worker is then ready to load its weights within a fraction of a second, which is most of the time a viewer waits when
a group is replaced.
"""

import gc
import os
import signal

from engine.messages import FRONT_PID
from engine.stage.tether import end_with_parent

if FRONT_PID in os.environ:  # before the imports, which take seconds: the front may be killed meanwhile
    end_with_parent(int(os.environ.pop(FRONT_PID)))

# A whole process group may be told to end at once; whether workers end with it is for the front to say.
signal.signal(signal.SIGTERM, signal.SIG_IGN)

# Threads that wait for each other yield their core: spinning, the default, gains a quarter on an idle machine and costs
# half the speed as soon as anything else, the encoder's reader say, wants one of the cores. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Modules make hundreds of thousands of objects that stay. Looking through them for garbage again and again is a quarter
# of what importing takes, and would stop a worker for 0.2 s each time, so it looks at none of them.
gc.disable()
os.register_at_fork(after_in_child=gc.freeze)
os.register_at_fork(after_in_child=gc.enable)

import engine.stage.worker  # noqa: E402, F401
