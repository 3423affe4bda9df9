"""Names of the HTTP headers that the contract fixes. Matching is case-insensitive everywhere."""

API_KEY = "APIKey"
SECRET = "Secret"  # noqa: S105 - a header's name
SESSION_TOKEN = "Xdata-Session-Token"  # noqa: S105
SESSION_ID = "Xdata-Session-Id"
GATEWAY_SECRET = "Xdata-Gateway-Secret"  # noqa: S105
SCOPES = "Xdata-Scopes"
KEY = "Xdata-Key"
REQUEST_ID = "X-Request-ID"
IDEMPOTENCY_KEY = "Idempotency-Key"
