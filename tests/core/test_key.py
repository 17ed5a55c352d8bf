"""The key: what makes two calls the same call, and everything that must not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from sdk_fields import FIELDS, PATHS

from underlay.core.key import (
    CREDENTIALS,
    NEUTRAL,
    NEUTRAL_COOKIES,
    NEUTRAL_PREFIXES,
    Body,
    Unkeyable,
    body_of,
    digest,
    head_of,
    key_of,
    scope_of,
    sort_headers,
)

URL = b"https://api.openai.com/v1/chat/completions"
SENT = [
    (b"Host", b"api.openai.com"),
    (b"Authorization", b"Bearer sk-secret"),
    (b"Content-Type", b"application/json"),
    (b"Accept-Encoding", b"gzip, br"),
]
ASK = b'{"model":"gpt-4o","messages":[{"role":"user","content":"Hi"}]}'
Header = tuple[bytes, bytes]


def both(
    body: bytes = ASK,
    headers: list[Header] | None = None,
    *,
    secret: bytes = b"process",
    namespace: str | None = None,
    method: bytes = b"POST",
    url: bytes = URL,
) -> tuple[bytes, bytes]:
    """The key and the raw digest of a request."""
    sorted_ = sort_headers(SENT if headers is None else headers)
    scope = scope_of(secret, sorted_.credentials, namespace)
    parsed = body_of(body)
    assert isinstance(parsed, Body), parsed
    head = head_of(scope, method, url, sorted_.kept)
    return key_of(head, parsed), digest(head, body)


def key(body: bytes = ASK, headers: list[Header] | None = None, **how: Any) -> bytes:
    """The key of a request."""
    return both(body, headers, **how)[0]


def dumped(value: object) -> bytes:
    """JSON as the SDKs write it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LEAF = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)
NAME = st.sampled_from(FIELDS) | TEXT
BODY = st.dictionaries(NAME, VALUE, max_size=6)
some = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def planted(path: tuple[str, ...], value: object) -> dict[str, Any]:
    """A body with this value at this path."""
    for name in reversed(path):
        value = {name: value}
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_the_sdks_is_in_the_key(field: str) -> None:
    """Adding, changing, emptying or removing any field of the SDKs' own request types, nested ones included,
    is another call."""
    keys = {key(b'{"pad":1}')}
    paths = [path for path in PATHS if path[0] == field]
    values = (None, 0, "", "1", [], [1], {"another": 1})
    for path in paths:
        keys |= {key(dumped({"pad": 1, **planted(path, value)})) for value in values}
    assert len(keys) == 1 + len(paths) * len(values)


@some
@given(BODY, NAME, VALUE, VALUE)
def test_a_field_that_is_added_changed_or_removed_is_another_call(
    body: dict[str, Any], name: str, one: Any, two: Any
) -> None:
    """Whatever a field is called, its value and its presence are in the key."""
    assume(dumped(one) != dumped(two))
    without = {other: value for other, value in body.items() if other != name}
    keys = {key(dumped(each)) for each in (without, {**without, name: one}, {**without, name: two})}
    assert len(keys) == 3


@some
@given(st.lists(st.tuples(NAME, VALUE), min_size=1, max_size=6, unique_by=lambda pair: pair[0]), st.randoms())
def test_the_order_of_top_level_fields_is_not_in_the_key(pairs: list[tuple[str, Any]], chance: Any) -> None:
    """Two releases of an SDK write the same fields in another order, with other spaces between them: one call."""
    shuffled = list(pairs)
    chance.shuffle(shuffled)
    spaced = (
        b"\n{ " + b" ,\t".join(dumped(name) + b" :\r\n " + dumped(value) for name, value in shuffled) + b" } "
    )
    assert key(dumped(dict(pairs))) == key(spaced)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (b'{"schema":{"a":1,"b":2}}', b'{"schema":{"b":2,"a":1}}'),
        (b'{"tools":[{"a":1},{"b":2}]}', b'{"tools":[{"b":2},{"a":1}]}'),
        (b'{"t":1}', b'{"t":1.0}'),
        (b'{"t":1}', b'{"t":1e0}'),
        (b'{"t":1.0}', b'{"t":1e0}'),
        (b'{"t":0}', b'{"t":-0}'),
        (b'{"t":"\\u0041"}', b'{"t":"A"}'),
        (b'{"t":"\\/"}', b'{"t":"/"}'),
        (b'{"t":[1,2]}', b'{"t":[1, 2]}'),
        (b'{"t":"1"}', b'{"t":1}'),
        (b'{"t":null}', b"{}"),
        (b'{"t":true}', b'{"t":1}'),
        (b'{"t":"a","u":"b"}', b'{"t":"b","u":"a"}'),
        (b'{"t":{"u":1}}', b'{"t":{},"u":1}'),
        (b'{"messages":[{"role":"system","content":"a"}]}', b'{"messages":[{"role":"user","content":"a"}]}'),
        (b'{"response_format":{"type":"text"}}', b'{"response_format":{"type":"json_object"}}'),
        ('{"t":"é"}'.encode(), '{"t":"e\u0301"}'.encode()),
    ],
)
def test_what_is_inside_a_field_stays_as_it_was_sent(one: bytes, two: bytes) -> None:
    """Nested order, the spelling of numbers and strings and the spaces inside a value are in the key."""
    assert key(one) != key(two)


@some
@given(BODY, BODY)
@example({"a": 1, "b": 2}, {"a": [1], "b": 2})
@example({"ab": "c"}, {"a": "bc"})
@example({"1:a": "1:a"}, {"1": "a1:a"})
def test_two_bodies_with_one_key_are_one_body(one: dict[str, Any], two: dict[str, Any]) -> None:
    """The framing is injective: equal keys mean equal fields with equal texts."""
    same = {name: dumped(value) for name, value in one.items()} == {
        name: dumped(value) for name, value in two.items()
    }
    assert (key(dumped(one)) == key(dumped(two))) is same


FRAME = st.text("a1:;,", max_size=4).map(str.encode)


@some
@given(
    st.lists(st.tuples(FRAME.filter(bool), FRAME), max_size=4),
    st.lists(st.tuples(FRAME.filter(bool), FRAME), max_size=4),
    FRAME,
    FRAME,
)
@example([(b"a", b"1:1")], [(b"a1", b":1")], b"", b"")
@example([(b"a", b"")], [], b"", b"1:a0:")
def test_headers_and_url_cannot_stand_in_for_each_other(
    one: list[Header], two: list[Header], url: bytes, other: bytes
) -> None:
    """Where a header's name, its value, the URL and the next header meet is in the key and in the raw digest."""
    names = sorted(one, key=lambda header: header[0]), sorted(two, key=lambda header: header[0])
    same = (names[0], url) == (names[1], other)
    keys, digests = zip(both(headers=one, url=url), both(headers=two, url=other), strict=True)
    assert (keys[0] == keys[1]) is same
    assert (digests[0] == digests[1]) is same


def test_the_body_cannot_stand_in_for_a_header() -> None:
    """A raw digest whose body starts like framed headers is not that of a request with those headers."""
    scope, head = b"s", (b"x", b"1")
    with_header = digest(head_of(scope, b"POST", URL, [head]), b"body")
    framed = b"1:x1:1"
    assert with_header != digest(head_of(scope, b"POST", URL, []), framed + b"body")
    assert with_header != digest(head_of(scope, b"POST", URL + framed, []), b"body")


@pytest.mark.parametrize(
    "how", [{"method": b"PUT"}, {"url": URL + b"?api-version=1"}, {"url": URL.replace(b"https", b"http")}]
)
def test_method_and_url_are_in_the_key(how: dict[str, bytes]) -> None:
    """Scheme, path, query and method make another call."""
    assert key() != key(**how)


KEPT = [
    b"accept-encoding",
    b"accept",
    b"openai-organization",
    b"anthropic-version",
    b"anthropic-beta",
    b"x-portkey-provider",
    b"helicone-cache",
    b"x-new-tomorrow",
    b"host",
    b"content-type",
    b"pragma",
]


@pytest.mark.parametrize("name", KEPT)
def test_a_header_that_is_not_known_to_be_neutral_is_in_the_key(name: bytes) -> None:
    """Gateways route by header: adding, changing, repeating or removing one is another call, its case is not."""
    base = [header for header in SENT if header[0].lower() != name]
    keys = [
        key(headers=base + more)
        for more in ([], [(name, b"1")], [(name, b"2")], [(name, b"1"), (name, b"1")], [(name, b"")])
    ]
    assert len(set(keys)) == len(keys)
    assert key(headers=[*base, (name.upper(), b"1")]) == keys[1]
    assert key(headers=[(name, b"1"), *base]) == keys[1]


@some
@given(st.from_regex(rb"[a-z][a-z0-9-]{0,20}", fullmatch=True), FRAME, FRAME)
def test_any_header_is_in_the_key_unless_the_list_says_otherwise(name: bytes, one: bytes, two: bytes) -> None:
    """Default-deny: a header's value matters exactly when its name is not in the neutral list."""
    assume(one != two)
    assume(name != b"cookie")
    neutral = name in NEUTRAL or name.startswith(tuple(NEUTRAL_PREFIXES))
    keys, digests = zip(
        *(both(headers=[*SENT, *more]) for more in ([], [(name, one)], [(name, two)])), strict=True
    )
    assert len(set(keys)) == len(set(digests)) == (1 if neutral else 3)


@pytest.mark.parametrize("name", [*NEUTRAL, *(prefix + b"anything" for prefix in NEUTRAL_PREFIXES)])
def test_a_neutral_header_is_not_in_the_key_whatever_its_case(name: bytes) -> None:
    """Headers that vary between repetitions of one question do not make it another; each has its reason."""
    assert (
        key(headers=[*SENT, (name, b"1")])
        == key(headers=[*SENT, (name.title(), b"2"), (name, b"3")])
        == key()
    )
    assert NEUTRAL.get(name, "prefix")


def test_accept_encoding_and_credentials_are_not_neutral() -> None:
    """The two headers whose neglect serves garbage, or somebody else's answer, are in no neutral list."""
    for name in (b"accept-encoding", b"accept", *CREDENTIALS):
        assert name not in NEUTRAL
        assert not name.startswith(tuple(NEUTRAL_PREFIXES))


def test_the_order_of_equal_headers_is_kept() -> None:
    """Two values of one header are a list, and lists have an order."""
    one, two = (b"x-route", b"a"), (b"x-route", b"b")
    assert key(headers=[one, two]) != key(headers=[two, one])


@pytest.mark.parametrize("name", sorted(CREDENTIALS))
def test_a_credential_is_a_scope_of_its_own(name: bytes) -> None:
    """Adding, changing or removing any credential header is another scope, and so another key and digest."""
    base = [(b"host", b"h")]
    seen = [
        both(headers=base + more)
        for more in ([], [(name, b"k=1")], [(name, b"k=2")], [(name, b"")], [(name, b"k=1"), (name, b"k=1")])
    ]
    assert (
        len({pair[0] for pair in seen}) == len({pair[1] for pair in seen}) == len(seen) - (name == b"cookie")
    )
    assert key(headers=[*base, (name.title(), b"k=1")]) == seen[1][0]


def test_the_same_secret_under_another_header_is_another_scope() -> None:
    """`api-key: x` and `x-api-key: x` are two credentials."""
    made = {scope_of(b"s", ((name, b"x"),), None) for name in CREDENTIALS}
    assert len(made) == len(CREDENTIALS)


def test_credentials_never_appear_in_anything() -> None:
    """Neither scope nor headers nor key nor digest carry a credential, as bytes or in the kept headers."""
    secret = b"sk-very-secret-0123456789"
    headers = sort_headers([*((name, secret) for name in CREDENTIALS), (b"x-other", b"1")])
    scope = scope_of(b"process", headers.credentials, None)
    body = body_of(ASK)
    assert isinstance(body, Body)
    head = head_of(scope, b"POST", URL, headers.kept)
    made = [scope, key_of(head, body), digest(head, ASK)]
    assert secret not in head
    assert headers.kept == ((b"x-other", b"1"),)
    assert not [each for each in made if secret in each]
    assert [len(each) for each in made] == [33, 32, 32]


def test_the_scope_depends_on_the_process_secret() -> None:
    """Without the process's secret nobody can tell a credential from its scope."""
    headers = sort_headers(SENT)
    assert scope_of(b"one", headers.credentials, None) != scope_of(b"two", headers.credentials, None)


def test_a_namespace_stands_in_for_the_credential() -> None:
    """Under a namespace a rotated token keeps its answers; another namespace, or none, does not see them."""
    rotated = [(name, value if name != b"Authorization" else b"Bearer next") for name, value in SENT]
    assert key(namespace="team") == key(headers=rotated, namespace="team")
    assert (
        len({key(), key(headers=rotated), key(namespace="team"), key(namespace="other"), key(namespace="")})
        == 5
    )


def test_a_namespace_cannot_be_forged_by_a_credential() -> None:
    """No credential gives the scope of a namespace: the two kinds are told apart before the hash."""
    named = scope_of(b"s", (), "team")
    assert named != scope_of(b"s", ((b"team", b""),), None)
    assert {named[:1], scope_of(b"s", (), None)[:1]} == {b"n", b"c"}


@pytest.mark.parametrize("name", sorted(NEUTRAL_COOKIES))
def test_only_the_fronts_own_cookies_are_left_out(name: bytes) -> None:
    """A neutral cookie beside a telling one changes nothing; the telling one still does."""
    alone = key(headers=[*SENT, (b"cookie", b"session=1")])
    assert (
        alone
        == key(headers=[*SENT, (b"cookie", name + b"=x; session=1")])
        == key(headers=[*SENT, (b"Cookie", b"session=1;" + name + b"=y")])
    )
    assert alone not in (key(), key(headers=[*SENT, (b"cookie", name + b"=x; session=2")]))
    assert key(headers=[*SENT, (b"cookie", name + b"=x")]) == key()
    assert key(headers=[*SENT, (b"cookie", b"a=" + name + b"=x")]) != key()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"a":1,"a":1}', "duplicate_names"),
        (b'{"a":1,"\\u0061":1}', "duplicate_names"),
        (b'{"a":{"b":1,"b":2}}', "duplicate_names"),
        (b'{"a":[[{"b":1,"c":2,"b":1}]]}', "duplicate_names"),
        (b'{"a":1,"a":1,', "duplicate_names"),
        (b'{"a":1,"a":', "not_json"),
        (b'{"a":1,"a":1}x', "duplicate_names"),
        (b'{"a":NaN}', "not_a_number"),
        (b'{"a":[Infinity]}', "not_a_number"),
        (b'{"a":-Infinity}', "not_a_number"),
        (b'{"a":NaN', "not_a_number"),
        (b'{"a":"\xff"}', "invalid_utf8"),
        (b'{"a":"\xed\xa0\x80"}', "invalid_utf8"),
        ('{"a":1}'.encode("utf-16"), "invalid_utf8"),
        (b'\xef\xbb\xbf{"a":1}', "not_json"),
        ('{"a":1}'.encode("utf-16-le"), "not_json"),
        (b"", "not_json"),
        (b" ", "not_json"),
        (b"{", "not_json"),
        (b"[]", "not_json"),
        (b"[1]", "not_json"),
        (b"null", "not_json"),
        (b'"{}"', "not_json"),
        (b'{"a":1}{}', "not_json"),
        (b'{"a":1},', "not_json"),
        (b'{"a":1}\x00', "not_json"),
        (b'{"a":1}\xc2\xa0', "not_json"),
        (b'{"a":1,}', "not_json"),
        (b'{,"a":1}', "not_json"),
        (b'{"a" 1}', "not_json"),
        (b'{"a":1 "b":2}', "not_json"),
        (b"{'a':1}", "not_json"),
        (b'{"a":01}', "not_json"),
        (b'{"a":.5}', "not_json"),
        (b'{"a":"\n"}', "not_json"),
        (b'{"a\n":1}', "not_json"),
        (b'{"a":"\\x"}', "not_json"),
        (b'{"a":' + b"9" * 5000 + b"}", "not_json"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not_json"),
        (b'{"a":1,"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not_json"),
    ],
)  # fmt: skip
def test_a_body_without_one_meaning_has_no_key(raw: bytes, reason: str) -> None:
    """Repeated names, NaN, Infinity, other encodings, and whatever is no JSON object are not keyed, and nothing
    is raised."""
    made = body_of(raw)
    assert isinstance(made, Unkeyable)
    assert made.reason == reason


def test_an_ambiguous_body_still_says_what_it_asks() -> None:
    """What can be read of an unkeyable body is there for the books, by the last of two equal names."""
    assert body_of(b'{"model":"a","model":"b","t":NaN}') == Unkeyable(
        "duplicate_names", {"model": "b", "t": pytest.approx(float("nan"), nan_ok=True)}
    )
    assert body_of(b'{"a":1,"a":2,') == Unkeyable("duplicate_names", None)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40) | st.text('{}[]":,\\u0123456789aeEtrufalsn. \n', max_size=24).map(str.encode))
def test_the_parser_agrees_with_the_standard_one(raw: bytes) -> None:
    """What is keyed is a JSON object to Python too, with the same fields; nothing is ever raised."""
    made = body_of(raw)
    if isinstance(made, Body):
        assert dict(made.fields) == json.loads(raw)
        assert [name for name, _ in made.members] == sorted(made.fields)
        assert {name: json.loads(text) for name, text in made.members} == dict(made.fields)
    elif made.reason == "not_json":
        try:
            value = json.loads(raw.decode())
        except ValueError:
            value = None
        assert not isinstance(value, dict)


@some
@given(BODY)
def test_a_body_is_read_as_it_was_written(body: dict[str, Any]) -> None:
    """Fields are the parsed values, members the texts exactly as sent, in order of name."""
    made = body_of(dumped(body))
    assert made == Body(body, tuple(sorted((name, dumped(value).decode()) for name, value in body.items())))


def test_lone_surrogates_have_a_key() -> None:
    """An escaped lone surrogate is legal JSON: it is keyed, and differs from any other text."""
    spelled = [b'{"\\ud800":1}', b'{"\\ud801":1}', b'{"a":"\\ud800"}', b'{"?":1}']
    assert len({key(each) for each in spelled}) == len(spelled)


def test_a_flood_of_header_names_does_not_grow_the_memory_for_ever() -> None:
    """Names come from outside: what is remembered about them is bounded, and stays right."""
    from underlay.core import key as module

    for number in range(2 * module._KINDS_LIMIT):
        sort_headers([(b"x-%d" % number, b"")])
    assert len(module._kinds) <= module._KINDS_LIMIT
    assert sort_headers(SENT).credentials == ((b"authorization", b"Bearer sk-secret"),)
