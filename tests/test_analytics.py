"""What servers upload: which rows are taken, and what is said of others."""

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bouncerd.analytics import MAX_ROWS, Parsed, check, parse_upload
from bouncerd.envelope import WireError
from bouncerd.forms import Form
from bouncerd.realms import parse_realm
from bouncerd.uploads import AuditRow, CountRow, Marks, RealmRow, Upload
from tests.test_bulk import finished, told

UUID = "2b4050cd-65ee-44a1-80cf-3553ca5584f0"
COUNT = {
    "property": "messages_sent:is_bot:hour",
    "realm": 2,
    "id": 5,
    "end_time": 1700006400.0,
    "subgroup": "false",
    "value": 7,
}
HUMANS = {"10": {"11": {"100": 1, "200": 0, "300": 0, "400": 3, "600": 2}, "12": 9}}
AUDIT = {
    "id": 5,
    "realm": 2,
    "event_time": 1700000001.5,
    "backfilled": False,
    "extra_data": HUMANS,
    "event_type": 101,
}
REALM = {
    "id": 2,
    "host": "chat.example.org",
    "url": "https://chat.example.org",
    "name": "Example",
    "org_type": 10,
    "date_created": 1672531200.25,
    "deactivated": False,
    "is_system_bot_realm": False,
    "authentication_methods": {"Email": True, "LDAP": False},
    "uuid": UUID,
    "uuid_owner_secret": "zuliprealm_secret",
}
REMOVED = object()


def a_form(**parameters: Any) -> Form:
    """Fill a form, with values that are not text spelled as JSON."""
    fields = {"realm_counts": [], "installation_counts": [], **parameters}
    return Form(
        {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in fields.items()
            if value is not REMOVED
        }
    )


def changed(row: Mapping[str, Any], **members: Any) -> dict[str, Any]:
    """Change a row, or take members out of it."""
    return {key: value for key, value in {**row, **members}.items() if value is not REMOVED}


def parsed(**parameters: Any) -> Parsed:
    return finished(parse_upload(a_form(**parameters)))[0]


def uploaded(marks: Any = None, **parameters: Any) -> Upload:
    return finished(check(parsed(**parameters), marks or Marks()))[0]


def wrong(**parameters: Any) -> str:
    return told(parse_upload(a_form(**parameters)))


def refused(marks: Any = None, **parameters: Any) -> str:
    return told(check(parsed(**parameters), marks or Marks()))


class ParameterTests(SynchronousTestCase):
    """The parameters, in the order in which mistakes are told of."""

    def test_missing(self) -> None:
        """Two lists must be there, the rest need not: servers before 8.0 know nothing of it."""
        for name in ("realm_counts", "installation_counts"):
            with self.assertRaises(WireError) as caught:
                parsed(**{name: REMOVED})
            self.assertEqual(caught.exception.code, "REQUEST_VARIABLE_MISSING")
            self.assertEqual(caught.exception.data, {"var_name": name})
        self.assertEqual(parsed(), Parsed([], [], None, None, None, None, None))

    def test_empty(self) -> None:
        """An empty list is not the same as none: it says that there is nothing new."""
        empty = parsed(realmauditlog_rows=[], realms=[])
        self.assertEqual((empty.audit_rows, empty.realms), ([], []))

    def test_lists(self) -> None:
        """What is no JSON list is told so by its name."""
        for name in ("realm_counts", "installation_counts", "realmauditlog_rows", "realms"):
            self.assertEqual(wrong(**{name: "x"}), f"{name} is not valid JSON")
            self.assertEqual(wrong(**{name: ""}), f"{name} is not valid JSON")
            self.assertEqual(wrong(**{name: "null"}), f"{name} is not a list")
            self.assertEqual(wrong(**{name: {}}), f"{name} is not a list")

    def test_order(self) -> None:
        """The first parameter with a mistake is the one that is told of."""
        names = ["realm_counts", "installation_counts", "realmauditlog_rows", "realms",
                 "version", "merge_base", "api_feature_level"]  # fmt: skip
        good = dict(zip(names, ["[]"] * 4 + ['""', '""', "0"], strict=True))
        for position, name in enumerate(names):
            bad = {**good, **dict.fromkeys(names[position:], "x")}
            self.assertEqual(wrong(**bad), f"{name} is not valid JSON")

    def test_software(self) -> None:
        """The version triple is JSON of the right types, and cut or refused where too long."""
        it = parsed(version='"9.2+git"', merge_base='"9.0"', api_feature_level="278")
        self.assertEqual((it.version, it.merge_base, it.feature_level), ("9.2+git", "9.0", 278))
        self.assertEqual(parsed(version=json.dumps("9" * 200)).version, "9" * 128)
        for name, value, words in [
            ("version", "9.2", "is not a string"),
            ("version", "null", "is not a string"),
            ("version", '"\\u0000"', "has invalid format"),
            ("merge_base", "9", "is not a string"),
            ("merge_base", json.dumps("9" * 129), "is too long (limit: 128 characters)"),
            ("api_feature_level", '"278"', "is not an integer"),
            ("api_feature_level", "278.0", "is not an integer"),
            ("api_feature_level", "true", "is not an integer"),
            ("api_feature_level", "null", "is not an integer"),
            ("api_feature_level", "-1", "is out of range"),
            ("api_feature_level", str(2**31), "is out of range"),
        ]:
            self.assertEqual(wrong(**{name: value}), f"{name} {words}")

    def test_limit(self) -> None:
        """Ten thousand rows a list are as many as servers send."""
        rows = [changed(COUNT, id=number) for number in range(1, MAX_ROWS + 1)]
        self.assertEqual(len(parsed(realm_counts=rows).realm_counts), MAX_ROWS)
        self.assertEqual(
            wrong(realm_counts=[*rows, COUNT]), "realm_counts is too long (limit: 10000 rows)"
        )


class RowTests(SynchronousTestCase):
    """The rows and what they must hold."""

    def test_good(self) -> None:
        """Rows are read as they are, keys that nobody knows left out."""
        count = changed(COUNT, extra=1)
        it = parsed(realm_counts=[count], installation_counts=[count], realmauditlog_rows=[AUDIT])
        self.assertEqual(
            it.realm_counts,
            [CountRow(5, "messages_sent:is_bot:hour", "false", 1700006400.0, 7, 2)],
        )
        self.assertEqual(
            it.installation_counts,
            [CountRow(5, "messages_sent:is_bot:hour", "false", 1700006400.0, 7)],
        )
        text = json.dumps(HUMANS, separators=(",", ":"))
        self.assertEqual(it.audit_rows, [AuditRow(5, 2, 101, 1700000001.5, False, text, 6)])

    def test_lenient(self) -> None:
        """An integer is a time, too; a subgroup may be null; a value negative."""
        row = changed(COUNT, end_time=1700006400, subgroup=None, value=-3)
        [it] = parsed(realm_counts=[row]).realm_counts
        self.assertEqual((it.end_time, it.subgroup, it.value), (1700006400.0, None, -3))

    def test_members(self) -> None:
        """A member that is missing or of another type is named, with its row."""
        integers, times = {"realm", "id", "value", "event_type"}, {"end_time", "event_time"}
        texts = {"property", "subgroup"}
        for name, row in [
            ("realm_counts", COUNT),
            ("installation_counts", changed(COUNT, realm=REMOVED)),
            ("realmauditlog_rows", changed(AUDIT, extra_data=REMOVED)),
        ]:
            good = changed(row, extra_data=None)
            for key in row:
                path = f'{name}[1]["{key}"]'
                kind = (
                    "an integer" if key in integers else "a float" if key in times
                    else "a string" if key in texts else "a boolean"
                )  # fmt: skip
                values: list[Any] = [
                    5 if key in texts else "5",
                    "x" if key in times else 5.5,
                    0 if key == "backfilled" else True,
                    [],
                    {},
                ]
                for value in values:
                    rows = [good, {**good, key: value}]
                    self.assertEqual(wrong(**{name: rows}), f"{path} is not {kind}", value)
                self.assertEqual(
                    wrong(**{name: [good, changed(good, **{key: REMOVED})]}),
                    f"{path} field is missing: Field required",
                )

    def test_no_row(self) -> None:
        """A row that is no object is told so in the reference's words."""
        for name, model in [
            ("realm_counts", "RealmCountDataForAnalytics"),
            ("installation_counts", "InstallationCountDataForAnalytics"),
            ("realmauditlog_rows", "RealmAuditLogDataForAnalytics"),
            ("realms", "RealmDataForAnalytics"),
        ]:
            no_rows: list[Any] = [[], None, 1, "x"]
            for row in no_rows:
                self.assertEqual(
                    wrong(**{name: [row]}),
                    f"Invalid {name}[0]: Input should be a valid dictionary or instance of {model}",
                )

    def test_ranges(self) -> None:
        """What no database holds is refused, where the reference would have broken down."""
        for key, value in [
            ("id", 2**31), ("id", -(2**31) - 1), ("realm", 2**40), ("value", 2**63),
            ("value", -(2**63) - 1), ("end_time", 1e20), ("end_time", -1e20), ("end_time", 10**400),
        ]:  # fmt: skip
            message = wrong(realm_counts=[{**COUNT, key: value}])
            self.assertEqual(message, f'realm_counts[0]["{key}"] is out of range')
        for key in ("property", "subgroup"):
            self.assertEqual(
                wrong(realm_counts=[{**COUNT, key: "x" * 1025}]),
                f'realm_counts[0]["{key}"] is too long (limit: 1024 characters)',
            )
            self.assertEqual(
                wrong(realm_counts=[{**COUNT, key: "\0"}]),
                f'realm_counts[0]["{key}"] has invalid format',
            )

    def test_extra_data(self) -> None:
        """An audit row's data is an object, JSON text of one, or nothing."""
        good: list[tuple[Any, str]] = [
            (None, "{}"), ({}, "{}"), ("{}", "{}"), ("null", "{}"), ('{"a": 1}', '{"a":1}')
        ]  # fmt: skip
        for data, text in good:
            [row] = parsed(realmauditlog_rows=[{**AUDIT, "extra_data": data}]).audit_rows or ()
            self.assertEqual((row.extra_data, row.humans), (text, None))
        path = 'realmauditlog_rows[0]["extra_data"]'
        wrong_ones: list[Any] = [1, True, []]
        for bad in wrong_ones:
            self.assertEqual(
                wrong(realmauditlog_rows=[{**AUDIT, "extra_data": bad}]),
                f'{path}["str"] is not a string',
            )
        self.assertEqual(
            wrong(realmauditlog_rows=[changed(AUDIT, extra_data=REMOVED)]),
            f"{path} field is missing: Field required",
        )

    def test_humans(self) -> None:
        """Humans of all five roles count, guests too, bots not; odd numbers are no count."""
        for roles, humans in [
            ({"100": 1, "200": 2, "300": 3, "400": 4, "600": 5, "700": 100}, 15),
            ({"400": 4}, 4),
            ({}, 0),
            ({"400": "4"}, None),
            ({"400": True}, None),
            ({"400": -1}, None),
            ({"400": 2**70}, None),
            ([], None),
        ]:
            for data in ({"10": {"11": roles}}, json.dumps({"10": {"11": roles}})):
                [row] = parsed(realmauditlog_rows=[{**AUDIT, "extra_data": data}]).audit_rows or ()
                self.assertEqual(row.humans, humans)
        odd_ones: list[Any] = [{"10": []}, {"11": {}}, {"10": {"12": 3}}, "[]", "5"]
        for odd in odd_ones:
            [row] = parsed(realmauditlog_rows=[{**AUDIT, "extra_data": odd}]).audit_rows or ()
            self.assertIsNone(row.humans)


class RealmTests(SynchronousTestCase):
    """How a server describes its organizations."""

    def test_good(self) -> None:
        """All is taken over; what may be left out has its default."""
        [realm] = parsed(realms=[REALM]).realms or ()
        methods = '{"Email":true,"LDAP":false}'
        self.assertEqual(
            realm,
            RealmRow(UUID, 2, "chat.example.org", "Example", 10, 1672531200.25, False, False,
                     methods, "zuliprealm_secret"),
        )  # fmt: skip
        optional = dict.fromkeys(("name", "org_type", "is_system_bot_realm"), REMOVED)
        [least] = parsed(
            realms=[changed(REALM, authentication_methods=REMOVED, **optional)]
        ).realms or ()  # fmt: skip
        self.assertEqual(least, RealmRow(UUID, 2, "chat.example.org", "", 0, 1672531200.25, False,
                                         False, "{}", "zuliprealm_secret"))  # fmt: skip

    def test_unknown_keys(self) -> None:
        """A newer server's realms have more keys; only where a person waits are they refused."""
        realm = {**REALM, "surprise": 1}
        self.assertEqual(parsed(realms=[realm]).realms, parsed(realms=[REALM]).realms)
        caught = self.assertRaises(WireError, parse_realm, realm, "realm", only_known_keys=True)
        self.assertEqual(caught.msg, 'Argument "surprise" at realm["surprise"] is unexpected')

    def test_members(self) -> None:
        """What is missing or wrong is named."""
        optional = {"name", "org_type", "is_system_bot_realm", "authentication_methods"}
        for key in REALM.keys() - optional:
            self.assertEqual(
                wrong(realms=[changed(REALM, **{key: REMOVED})]),
                f'realms[0]["{key}"] field is missing: Field required',
            )
        for key, value, words in [
            ("org_type", "10", "is not an integer"),
            ("name", None, "is not a string"),
            ("deactivated", 0, "is not a boolean"),
            ("is_system_bot_realm", None, "is not a boolean"),
            ("authentication_methods", ["Email"], "is not a dict"),
            ("date_created", "2023-01-01", "is not a float"),
            ("uuid", 1, "is not a string"),
            ("uuid", "x", "has invalid format"),
            ("uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "has invalid format"),
        ]:
            self.assertEqual(wrong(realms=[{**REALM, key: value}]), f'realms[0]["{key}"] {words}')
        self.assertEqual(
            wrong(realms=[{**REALM, "authentication_methods": {"Email": "yes"}}]),
            'realms[0]["authentication_methods"]["Email"] is not a boolean',
        )
        self.assertEqual(
            wrong(realms=[{**REALM, "org_type": 11}]),
            'Invalid realms[0]["org_type"]: Value error, Not a valid org_type value',
        )

    def test_uuid(self) -> None:
        """A UUID may be spelled in capitals or without hyphens."""
        for uuid in (UUID.upper(), UUID.replace("-", "")):
            [realm] = parsed(realms=[{**REALM, "uuid": uuid}]).realms or ()
            self.assertEqual(realm.uuid, UUID)


def counts(*ids: int, **members: Any) -> list[dict[str, Any]]:
    return [{**COUNT, "id": number, **members} for number in ids]


def audits(*ids: int, **members: Any) -> list[dict[str, Any]]:
    return [{**AUDIT, "id": number, **members} for number in ids]


class CheckTests(SynchronousTestCase):
    """Rules for rows: which statistics, which events, in which order."""

    def test_statistics(self) -> None:
        """Retired and future statistics are accepted and dropped, and not asked for again."""
        rows = [
            *counts(1),
            *counts(2, property="invites_sent::day"),
            *counts(3, property="of_the_future::day"),
        ]
        upload = uploaded(realm_counts=rows, installation_counts=rows[1:])
        self.assertEqual([row.id for row in upload.realm_counts], [1])
        self.assertEqual(upload.installation_counts, [])
        self.assertEqual(upload.highest, {"realm_count": 3, "installation_count": 3})

    def test_ours(self) -> None:
        """What the bouncer counts itself nobody may upload."""
        for name in ("mobile_pushes_received::day", "mobile_pushes_forwarded::day"):
            for each in ("realm_counts", "installation_counts"):
                rows = [*counts(1), *counts(2, property=name)]
                self.assertEqual(refused(**{each: rows}), f"Invalid property {name}")

    def test_order(self) -> None:
        """Ids increase from row to row and from upload to upload, dropped rows included."""
        marks, late = Marks(10, 20, 30), "Data is out of order."
        for name, mark, make in [
            ("realm_counts", 10, counts),
            ("installation_counts", 20, counts),
            ("realmauditlog_rows", 30, audits),
        ]:
            for ids in ([], [mark + 1], [mark + 1, mark + 5]):
                uploaded(marks, **{name: make(*ids)})
            for ids in ([mark], [mark + 2, mark + 2], [mark + 2, mark + 1], [0], [-1]):
                self.assertEqual(refused(marks, **{name: make(*ids)}), late)
        dropped = counts(12, 11, property="of_the_future::day")
        self.assertEqual(refused(realm_counts=dropped), late)

    def test_event_types(self) -> None:
        """Only the eight kinds of event that change the number of users are taken."""
        for event_type in (101, 102, 103, 104, 105, 201, 202, 229):
            uploaded(realmauditlog_rows=audits(1, event_type=event_type))
        for event_type in (0, 100, 106, 20001, 2**70):
            self.assertEqual(
                refused(realmauditlog_rows=audits(1, event_type=event_type)), "Invalid event type."
            )

    def test_malformed(self) -> None:
        """Data that is no JSON is told of after all else."""
        bad = audits(1, extra_data="{x")
        self.assertEqual(refused(realmauditlog_rows=bad), "Malformed audit log data")
        self.assertEqual(refused(realmauditlog_rows=bad + bad), "Data is out of order.")

    def test_first_mistake(self) -> None:
        """Mistakes are told of in the order of the lists, then of the rows."""
        ours = counts(1, property="mobile_pushes_received::day")
        late, bad_event = counts(0), audits(1, event_type=1)
        self.assertEqual(refused(realm_counts=late + ours), "Data is out of order.")
        self.assertIn("Invalid property", refused(realm_counts=ours + late))
        self.assertIn(
            "Invalid property",
            refused(installation_counts=ours, realmauditlog_rows=bad_event),
        )

    def test_pauses(self) -> None:
        """Rules are applied in pieces, too."""
        rows = counts(*range(1, 5001))
        self.assertEqual(finished(check(parsed(realm_counts=rows), Marks()))[1], 5)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


class FuzzTests(SynchronousTestCase):
    """Whatever comes in."""

    @given(st.data())
    def test_never_a_fault(self, data: st.DataObject) -> None:
        """A row with anything in it is taken or refused: it is never our fault."""
        good = data.draw(st.sampled_from([COUNT, AUDIT, REALM]))
        key = data.draw(st.sampled_from([*good, "surprise"]))
        value = data.draw(json_values | st.just(HUMANS))
        row = {**good, key: value} if data.draw(st.booleans()) else value
        name = data.draw(
            st.sampled_from(["realm_counts", "installation_counts", "realmauditlog_rows",
                             "realms", "version", "merge_base", "api_feature_level"])
        )  # fmt: skip
        text = json.dumps(data.draw(st.sampled_from([[row], row])), ensure_ascii=True)
        try:
            uploaded(**{name: data.draw(st.sampled_from([text, text[:-1], str(value)]))})
        except WireError as error:
            self.assertEqual(error.status, 400)
