"""The description of the API is true: of each route, and of nothing else."""

import re
from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bouncerd.api import PREFIX, Api
from tests.description import description, operations, resolved
from tests.in_memory import Daemon, basic
from tests.test_pages import upload

PAGES = {"/version", "/plan/", "/serverlogin/", "/remote-billing-login/{sealed}"}
METHODS = {"get", "post"}


def walked(part: Any) -> Iterator[Any]:
    """Yield every object in a piece of the description."""
    if isinstance(part, dict):
        yield part
    children = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for child in children:
        yield from walked(child)


class DescriptionTests(SynchronousTestCase):
    """docs/openapi.yaml."""

    def test_routes(self) -> None:
        """Every route of the API is described with its method, and no other."""
        routes = {
            (rule.rule, method)
            for rule in Api.app.url_map.iter_rules()
            for method in rule.methods or ()
            if method not in ("HEAD", "OPTIONS")
        }
        described = {(each.path, each.method) for each in operations()}
        of_api = {each for each in described if each[0].startswith(PREFIX)}
        self.assertEqual(of_api, routes)
        self.assertEqual({path for path, _ in described - of_api}, PAGES)

    def test_shape(self) -> None:
        """It is OpenAPI: versions, unique names, an answer for every operation, no dead $ref."""
        whole = description()
        self.assertRegex(whole["openapi"], r"^3\.1\.\d+$")
        self.assertEqual(set(whole), {"openapi", "info", "servers", "tags", "security", "paths",
                                      "components"})  # fmt: skip
        names = [each.about["operationId"] for each in operations()]
        self.assertEqual(len(names), len(set(names)))
        tags = {tag["name"] for tag in whole["tags"]}
        for methods in whole["paths"].values():
            self.assertLessEqual(set(methods), METHODS)
        for each in operations():
            self.assertLessEqual(set(each.about["tags"]), tags)
            self.assertTrue(each.about["summary"])
            for status, answer in each.about["responses"].items():
                self.assertRegex(status, r"^[2-5]\d\d$")
                self.assertTrue(resolved(answer)["description"])
        for part in walked(whole):
            if "$ref" in part:
                self.assertIsInstance(resolved(part), dict)
                self.assertEqual(set(part), {"$ref"})
            if "description" in part and "name" not in part and "type" in part:
                self.assertIsInstance(part["description"], str)
        used = {part["$ref"] for part in walked(whole) if "$ref" in part}
        there = {
            f"#/components/{kind}/{name}"
            for kind in ("responses", "schemas")
            for name in whole["components"][kind]
        }
        self.assertEqual(used, there)

    def test_required(self) -> None:
        """What is called required is described, and is asked for where it is missing."""
        daemon = Daemon()
        daemon.enrol()
        upload(daemon)
        for each in operations():
            body = each.about.get("requestBody")
            if body is None or each.path == "/serverlogin/":
                continue
            required = body["content"][each.encoding]["schema"].get("required", [])
            self.assertLessEqual(set(required), set(each.parameters), each.path)
            for name in required:
                values = {key: value for key, value in each.example.items() if key != name}
                headers = {"Content-Type": each.encoding, "Authorization": basic()}
                answer = daemon.send(each.method, each.path, each.body(values), headers)
                self.assertEqual(answer.status, 400, (each.path, name))
                wanted = re.escape(name)
                self.assertRegex(answer.json["msg"], f"'{wanted}'|\\[\"{wanted}\"\\]")

    def test_examples(self) -> None:
        """The examples are good requests: each is served, if a request is all that it takes."""
        daemon = Daemon()
        daemon.enrol()
        upload(daemon)
        phone = {"token": "c0ffee", "token_kind": "1", "ios_app_id": "org.example.App"}
        for each in operations():
            if not each.path.startswith(PREFIX) or each.path.endswith("deactivate"):
                continue
            daemon.post_form("push/register", user_id="17", **phone)
            headers = {"Content-Type": each.encoding, "Authorization": basic()}
            answer = daemon.send(each.method, each.path, each.body(each.example), headers)
            # Nobody shows a secret; nobody holds the key.
            cannot = each.path.endswith(("verify_challenge", "e2ee/register"))
            self.assertEqual(answer.status, 400 if cannot else 200, (each.path, answer.body))
            described = resolved(each.about["responses"][str(answer.status)])
            for schema in self.schemas(described):
                self.assertLessEqual(set(schema.get("required", [])), set(answer.json), each.path)

    def schemas(self, answer: Any) -> list[Any]:
        whole = resolved(answer["content"]["application/json"]["schema"])
        return [resolved(part) for part in whole.get("allOf", [whole])]
