"""Runs a command as a background job of the terminal on descriptor 0, as an interactive shell does for `command &`.

    background_job.py COMMAND...

This process leads the session and is the terminal's foreground group; it waits and passes the exit status on.
"""

import fcntl
import os
import sys
import termios


def main():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        os.execv(sys.argv[1], sys.argv[1:])
    _, status = os.waitpid(job, 0)
    sys.exit(os.waitstatus_to_exitcode(status) & 0xff)


if __name__ == "__main__":
    main()
