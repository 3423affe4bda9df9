"""The REST facade: user tokens, products, views and sessions in the manner of BMC's Common REST API.

Its facts are from that API's public documentation; pages of its generations differ, and all of their ways are taken.
"""

from dataproc.web.cra.addresses import canonical as canonical
from dataproc.web.cra.facade import Facade as Facade
from dataproc.web.cra.routes import router as router
