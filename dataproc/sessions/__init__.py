"""Sessions: opened, looked up, kept busy, ended. What a session's directory is, others know."""

from dataproc.database.records import Reason as Reason
from dataproc.database.records import Session as Session
from dataproc.database.statements import Due as Due
from dataproc.sessions.sessions import Opened as Opened
from dataproc.sessions.sessions import Sessions as Sessions
from dataproc.sessions.tokens import Issued as Issued
