"""Makes keys.json beside it, with the real LiteLLM: python make.py > keys.json

Needs litellm 1.110 with what its proxy imports. LiteLLM's own classes hold the rows, its own function hashes the
secrets, and its answer to GET /key/list has this form. config.yaml is read by the class that its proxy uses.
"""

import datetime
import json
import pathlib
import sys

import yaml
from litellm.proxy._types import ConfigYAML, KeyListResponseObject, UserAPIKeyAuth
from litellm.proxy.utils import hash_token

ConfigYAML(**yaml.safe_load((pathlib.Path(__file__).parent / "config.yaml").read_text(encoding="utf-8")))
at = datetime.datetime(2026, 11, 1, 12, 0, tzinfo=datetime.timezone.utc)
ROWS = [
    dict(secret="sk-canary-alice-0123456789", key_name="sk-...6789", key_alias="alice laptop", user_id="alice", team_id="team-1", models=["chat"],
         tpm_limit=20000, rpm_limit=60, max_parallel_requests=4, max_budget=10.0, budget_duration="30d", expires=at + datetime.timedelta(days=3650)),
    dict(secret="sk-canary-plain-0123456789"),
    dict(secret="sk-canary-admin-0123456789", user_id="admin", models=["all-team-models"], allowed_routes=["/chat/completions"]),
    dict(secret="sk-canary-block-0123456789", key_alias="alice laptop", user_id="bob", blocked=True, expires=at),
    dict(secret="sk-canary-spent-0123456789", user_id="carol", max_budget=5.0, spend=5.5, models=["all-proxy-models"]),
    dict(secret="sk-canary-daily-0123456789", user_id="dave", tpd_limit=1000, models=["no-default-models"], aliases={"a": "chat"}),
    dict(secret="sk-canary-login-0123456789", user_id="default_user_id", team_id="litellm-dashboard"),
]
keys = [UserAPIKeyAuth(token=hash_token(row.pop("secret")), created_at=at, **row) for row in ROWS]
page = KeyListResponseObject(keys=keys, total_count=len(keys), current_page=1, total_pages=1)
json.dump({**page, "keys": [json.loads(k.model_dump_json(exclude_none=True)) for k in keys]}, sys.stdout, indent=1)
print()
