"""Sessions: opened, looked up, kept busy, ended. What a session's directory is, others know."""

from dataproc.sessions.sessions import Due as Due
from dataproc.sessions.sessions import Opened as Opened
from dataproc.sessions.sessions import Reason as Reason
from dataproc.sessions.sessions import Session as Session
from dataproc.sessions.sessions import Sessions as Sessions
from dataproc.sessions.tokens import Issued as Issued
