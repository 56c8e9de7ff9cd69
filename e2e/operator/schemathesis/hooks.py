"""What OpenAPI cannot say about the requests that are made from the document.

A request that breaks one of these rules would be refused although the document allows
it, or would take away what the test itself stands on.
"""

import datetime
import re
import urllib.parse

import schemathesis

OWN_KEY = "root"  # the key that the test asks with
PROCESSES = ("envoy", "tollgate", "vllm")  # restarting one would cut the test's own requests
TIME = re.compile(r"^(|0|[0-9]{1,4}[dhms]|today|yesterday|[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt].*)?)$")
LONGEST = 256  # bytes of a text of a key


def plain(text):
    """The same kind of text without what only a person could judge: names that look like
    another's, space around them, characters that cannot be seen."""
    if not isinstance(text, str) or len(text) > LONGEST:
        return text
    text = "".join(c if c.isascii() and c.isalnum() else "x" for c in text)
    return "x" if text.lower() in ("admin", "launcher") else text


def time(text, instead):
    """Another time in the place of one; what is none stays."""
    try:
        datetime.datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")
    except (TypeError, ValueError):
        return text
    return instead


def key(body):
    """A key whose texts are plain, and which does not end before it begins, whatever was
    said of it before."""
    for name, instead in (("not_before", "2001-01-01T00:00:00Z"), ("expires_at", "2099-01-01T00:00:00Z")):
        if name in body:
            body[name] = time(body[name], instead)
    for name in ("user", "note"):
        if name in body:
            body[name] = plain(body[name])
    if isinstance(body.get("models"), list):
        body["models"] = [plain(model) for model in body["models"]]


@schemathesis.hook
def before_call(context, case, kwargs):
    """Mends the case that is about to be sent."""
    for name, value in (case.path_parameters or {}).items():
        if value == OWN_KEY or value in PROCESSES:
            case.path_parameters[name] = "nobody"
    if isinstance(case.query, dict) and "since" in case.query and TIME.match(str(case.query.get("until"))):
        del case.query["until"]  # it might lie before
    if isinstance(case.body, dict) and case.path.startswith("/admin/keys"):
        key(case.body)
    if isinstance(case.body, dict) and case.path == "/admin/engines" and isinstance(case.body.get("address"), str):
        case.body["address"] = address(case.body["address"])
    if case.path == "/admin/engines/{address}":
        case.path_parameters["address"] = address(urllib.parse.unquote(str(case.path_parameters["address"])))
    if isinstance(case.body, dict) and isinstance(case.body.get("lora_path"), str):
        case.body["lora_path"] = "support"  # the one that is there
        if case.body.get("load_inplace") in (None, False):
            case.body["load_inplace"] = True  # or the name might be taken


def address(text):
    """An engine of this machine; there are not so many that they are too many."""
    return text if text.startswith("127.0.0.1:10") else "127.0.0.1:%d" % (1024 + len(text) % 16)
