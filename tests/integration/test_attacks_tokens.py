"""Each row of the table of tokens opens a door or none, and no token is told to anybody."""

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from tests.bystander import assert_same_rows, bystander, table
from tests.key_server import KeyServer, jwk, jwks, rsa_key
from tests.servers import Stack

CURRENT, NEXT, ROTATED = rsa_key("current"), rsa_key("next"), rsa_key("rotated")
REVOKED = "stolen-1"
AUDIENCE, ISSUER = "livefeed", "https://issuer.example"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
Sign = Callable[[bytes], bytes]


def rs256(key: Any) -> Sign:
    """Sign as RS256 does."""
    return lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def hs256(secret: bytes) -> Sign:
    """Sign as HS256 does."""
    return lambda data: hmac.digest(secret, data, hashlib.sha256)


def public_pem() -> bytes:
    """The public key as a file has it."""
    return CURRENT.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def part(value: Any) -> str:
    """One part of a token: of bytes as they are, of anything else its JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Forge:
    """Makes tokens as the configured signer does, and then not quite."""

    def __init__(self, algorithm: str, key_id: str | None, sign: Sign, rotated: Sign) -> None:
        self.header = {"alg": algorithm, "typ": "JWT", "kid": key_id}
        self.sign = sign
        self.rotated = rotated

    @property
    def claims(self) -> dict[str, Any]:
        return {
            "sub": "attacker",
            "aud": AUDIENCE,
            "iss": ISSUER,
            "iat": int(time.time()),
            "exp": int(time.time()) + 600,
        }

    def token(self, payload: Any = None, *, sign: Sign | None = None, **header: Any) -> str:
        """A signed token; None for a header leaves it out."""
        head = {name: value for name, value in (self.header | header).items() if value is not None}
        text = f"{part(head)}.{part(self.claims if payload is None else payload)}"
        return f"{text}.{part((sign or self.sign)(text.encode()))}"

    def with_claims(self, **changes: Any) -> str:
        """A token with other claims; None for a claim leaves it out."""
        claims = self.claims | changes
        return self.token({name: value for name, value in claims.items() if value is not None})

    def raw_claims(self, claims: str) -> str:
        """A token with this text after the usual claims."""
        return self.token((json.dumps(self.claims)[:-1] + claims).encode())

    def padded(self) -> str:
        """A good token whose signature has the padding of base64."""
        head, _, signature = self.token().rpartition(".")
        return f"{head}.{signature}{'=' * (-len(signature) % 4)}"

    def deep_header(self) -> str:
        """A token that nests in its header."""
        return f"{part(b'[' * 5_000)}.{part(self.claims)}.{part(b'x' * 32)}"


def attacks(forge: Forge) -> dict[str, list[str]]:
    """The tokens of each row."""
    now = int(time.time())
    good, stranger = forge.token(), rs256(rsa_key("stranger"))
    head, payload, signature = good.split(".")
    deep = ',"x":' + "[" * 2_600 + "]" * 2_600 + "}"
    own_key = jwk(rsa_key("stranger"), "stranger")
    return {
        "no token": ["", "Bearer"],
        "`alg` `none`": [forge.token(sign=lambda _: b"", alg="none"), forge.token(alg="none")],
        "`alg` `nOnE`": [forge.token(sign=lambda _: b"", alg="nOnE")],
        "`alg` missing": [forge.token(alg=None)],
        "RS256 to HS256 confusion": [
            forge.token(sign=hs256(public_pem()), alg="HS256"),
            forge.token(sign=hs256(public_pem().strip()), alg="HS256", kid=None),
        ],
        "`exp` missing": [forge.with_claims(exp=None)],
        "expired": [forge.with_claims(exp=now - 60)],
        "`exp` a text": [forge.with_claims(exp="never"), forge.with_claims(exp=str(now + 600))],
        "`exp` 1e308, `NaN` or `Infinity`": [
            forge.with_claims(exp=value) for value in (1e308, float("nan"), float("inf"))
        ],
        "`exp` true": [forge.with_claims(exp=True)],
        "`exp` a list": [forge.with_claims(exp=[now + 600])],
        "`nbf` in the future": [forge.with_claims(nbf=now + 600)],
        "`iat` in the future": [forge.with_claims(iat=now + 600)],
        "`aud` another": [forge.with_claims(aud="other"), forge.with_claims(aud=["other"])],
        "`aud` missing": [forge.with_claims(aud=None), forge.with_claims(aud=[])],
        "`iss` another": [forge.with_claims(iss=ISSUER + "/"), forge.with_claims(iss=[ISSUER])],
        "`iss` missing": [forge.with_claims(iss=None)],
        "`sub` missing or a number": [forge.with_claims(sub=None), forge.with_claims(sub=7)],
        "`sub` `*`": [forge.with_claims(sub="*")],
        "`sub` with dots": [forge.with_claims(sub="feed.users.>")],
        "`jti` a number": [forge.with_claims(jti=7)],
        "`feeds` a text or with `**`": [
            forge.with_claims(feeds="home"),
            forge.with_claims(feeds=["**"]),
        ],
        "a payload that is an array": [forge.token([forge.claims])],
        "a claim twice": [forge.raw_claims(',"sub":"other"}')],
        "unknown `crit`": [forge.token(crit=["x"], x=1)],
        "`b64` false": [forge.token(crit=["b64"], b64=False), forge.token(b64=False)],
        "`jku` or an embedded `jwk`": [
            forge.token(sign=stranger, jwk=own_key),
            forge.token(sign=stranger, jku="http://127.0.0.1:1/keys", x5u="http://127.0.0.1:1/"),
        ],
        "`kid` with a path, SQL or NUL": [
            forge.token(kid=kid) for kid in ("../../../etc/passwd", "' or 1=1 --", "a\0b", "")
        ],
        "`kid` a number": [forge.token(kid=7)],
        "`kid` of nobody": [forge.token(kid="nobody")],
        "no `kid` beside several keys": [forge.token(kid=None)],
        "signature stripped": [f"{head}.{payload}.", f"{head}.{payload}"],
        "signature of another token": [
            f"{head}.{payload}.{forge.with_claims(sub='other').rpartition('.')[2]}"
        ],
        "signature with junk": [f"{good}AAAA", f"{good}!!", f"{head}.{payload}.{'A' * 43}"],
        "signature with padding": [forge.padded()],
        "extra dots": [f"{good}.{signature}", f".{good}", good.replace(".", "..")],
        "leading blanks": [f"   {good}"],
        "longer than 8 KiB": [forge.with_claims(x="x" * 9_000)],
        "a payload 2,600 levels deep": [forge.raw_claims(deep)],
        "a header 5,000 levels deep": [forge.deep_header()],
        "a weak key": [
            forge.token(sign=rs256(rsa_key("weak", 1024)), alg="RS256", kid="weak"),
            forge.token(sign=hs256(b"secret"), alg="HS256"),
        ],
        "an empty key": [forge.token(sign=hs256(b""), alg="HS256")],
        "a revoked `jti`": [forge.with_claims(jti=REVOKED)],
        "a key that was rotated out": [
            forge.token(sign=forge.rotated, kid=forge.header["kid"] and "rotated")
        ],
        "another `typ`": [forge.token(typ="at+jwt"), forge.token(typ="JOSE")],
    }


async def test_tokens_with_one_key(stack: Stack) -> None:
    """HS256, as a small deployment has it."""
    stack.settings |= {"jwt_audience": AUDIENCE, "jwt_issuer": ISSUER}
    secret = stack.settings["jwt_secret"].encode()
    forge = Forge("HS256", None, hs256(secret), hs256(b"the secret before it" * 2))
    await stack.start_gateway()
    async with bystander(stack, forge.with_claims(sub="bystander")):
        await _assert_answers(stack, attacks(forge), column=0)


async def test_tokens_with_many_keys(stack: Stack) -> None:
    """RS256 with a JWKS that has rotated, one of whose keys is too short."""
    weak = jwk(rsa_key("weak", 1024), "weak")
    forge = Forge("RS256", "current", rs256(CURRENT), rs256(ROTATED))
    body = jwks(jwk(CURRENT, "current"), jwk(ROTATED, "rotated"), weak)
    async with KeyServer(body).serving() as server:
        stack.settings |= {"jwt_audience": AUDIENCE, "jwt_issuer": ISSUER}
        stack.settings |= {"jwt_algorithm": "RS256", "jwks_url": server.url}
        await stack.start_gateway()
        async with bystander(stack, forge.with_claims(sub="bystander")):
            server.body = jwks(jwk(CURRENT, "current"), jwk(NEXT, "next"), weak)
            made_up = [forge.token(kid=f"made-up-{number}") for number in range(20)]
            await _assert_answers(stack, {"`kid` of nobody": made_up}, column=1)
            await _assert_answers(stack, attacks(forge), column=1)
        assert server.requests == 2, "one at the start, one for all unknown keys"


async def _assert_answers(stack: Stack, tokens: dict[str, list[str]], *, column: int) -> None:
    rows = {name: answers[column] for name, answers in table("Tokens").items()}
    if len(tokens) > 1:
        assert_same_rows(rows, tokens)
        assert (await stack.command("revoke", "--token-id", REVOKED)).returncode == 0
    wrong = []
    async with httpx.AsyncClient(base_url=stack.url) as client:
        for attack, sent in tokens.items():
            for token in sent:
                answers = await _answers(client, token, upgrade=rows[attack] != "accepted")
                if answers != {rows[attack]}:
                    wrong.append(f"{attack}: {answers}, not {rows[attack]}: {token[:100]}")
    assert wrong == []
    _assert_untold(stack, [token for sent in tokens.values() for token in sent])


async def _answers(client: httpx.AsyncClient, token: str, *, upgrade: bool) -> set[str]:
    """What the snapshot and the handshake answer; none of it has anything of the token."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    given = [await client.get("/v1/feeds/home", headers=headers)]
    if upgrade:
        given.append(await client.get("/v1/ws?feeds=home", headers=headers | UPGRADE))
        if re.fullmatch(r"[\w.-]+", token):
            offered = {"Sec-WebSocket-Protocol": f"livefeed.v1, bearer.{token}"}
            given.append(await client.get("/v1/ws?feeds=home", headers=offered | UPGRADE))
    for answer in given:
        assert not any(text in answer.text for text in secrets_of(token))
    return {
        "accepted"
        if answer.status_code == httpx.codes.OK
        else f"{answer.status_code} `{answer.json()['error']['code']}`"
        for answer in given
    }


def secrets_of(token: str) -> list[str]:
    """The parts of a token that nobody may see; short ones are no secret, and found everywhere."""
    return [text for text in re.split(r"[^\w-]+", token) if len(text) > 30]


def _assert_untold(stack: Stack, tokens: list[str]) -> None:
    """No log of any process has a part of a token."""
    logs = "".join(path.read_text() for path in (stack.directory / "logs").glob("*.log"))
    assert "gateway: ready" in logs
    parts = {text[:40] for token in tokens for text in secrets_of(token)}
    assert [text for text in parts if text in logs] == []
