"""Makes calls with the published client of the licence API, unchanged: `calls.py BASE APPLICATION`.

Calls come from standard input, as JSON: [["authenticate", "user", "password"], ["get_user"]]. What the client has read after each
call, or the error that it raised, goes to standard output.
"""

import json
import sys

from cloudspotlicense import config
from cloudspotlicense.api import CloudspotLicense_API


def main() -> None:
    base, application = sys.argv[1:]
    config.BASE_URL = base
    api = CloudspotLicense_API(application)
    json.dump([outcome(api, *call) for call in json.load(sys.stdin)], sys.stdout)


def outcome(api: CloudspotLicense_API, method: str, *arguments: str) -> dict:
    try:
        returned = getattr(api, method)(*arguments)
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {
        "returned": returned,
        "token": api.token,
        "companies": [fields(company, "company_id", "company_name", "permissions") for company in api.permissions.items()],
        "user": fields(api.user, "first_name", "last_name", "email"),
    }


def fields(model: object, *names: str) -> dict:
    return {name: getattr(model, name) for name in names}


main()
