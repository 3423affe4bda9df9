"""Who may call: keys, credentials, scopes."""

from dataproc.access.authenticator import Authenticator as Authenticator
from dataproc.access.credentials import Credentials as Credentials
from dataproc.access.keys import Key as Key
from dataproc.access.keys import Keys as Keys
from dataproc.access.keys import NewKey as NewKey
from dataproc.access.scopes import ALL_SCOPES as ALL_SCOPES
from dataproc.access.scopes import may_exec as may_exec
from dataproc.access.scopes import narrowed as narrowed
from dataproc.access.scopes import require as require
from dataproc.access.scopes import require_exec as require_exec
