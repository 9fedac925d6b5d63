#!/usr/bin/env python3
"""A second reader of the vault format, written from src/vault/FORMAT.md and not from the program.

    reader.py open VAULT (--key-file F | --passphrase-file F | --recovery-file F)    everything in a vault, as JSON
    reader.py vectors DIRECTORY                                                       checks published vectors; exit 1 if one differs

Needs Python 3.9 and PyNaCl (Debian: python3-nacl). Meant to be read next to FORMAT.md; section numbers refer to it. Prints secrets: for tests only.
"""
import base64
import hashlib
import json
import os
import re
import sqlite3
import struct
import sys
import tempfile
import unicodedata
import zlib

from nacl import bindings as na
from nacl.exceptions import CryptoError

FORMAT = 1
NEVER = 2**48 - 1


class Refused(Exception):
    """What a reader must refuse. `code` is the program's exit class, `kind` the row of the table in section 10."""

    def __init__(self, code, kind):
        super().__init__(f"{code}: {kind}")
        self.code = code
        self.kind = kind


def tampered(kind):
    return Refused("tampered", kind)


# ---------------------------------------------------------------- bytes (section 1)


def H(length, message, key=b""):
    return hashlib.blake2b(message, digest_size=length, key=key).digest()


def kdf(key, number, context):
    """crypto_kdf of libsodium: BLAKE2b of nothing, salt = number (little-endian), personal = context."""
    salt = struct.pack("<Q", number) + bytes(8)
    return hashlib.blake2b(b"", digest_size=32, key=key, salt=salt, person=context + bytes(8)).digest()


class Reader:
    """Big-endian fields; running past the end or stopping before it is `kind`."""

    def __init__(self, data, kind):
        self.data, self.at, self.kind = data, 0, kind

    def raw(self, count):
        if self.at + count > len(self.data):
            raise tampered(self.kind)
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count):
        return int.from_bytes(self.raw(count), "big")

    def short(self):
        return self.raw(self.number(2))

    def long(self):
        return self.raw(self.number(4))

    def rest(self):
        return self.raw(len(self.data) - self.at)

    def end(self):
        if self.at != len(self.data):
            raise tampered(self.kind)


def text_of(data, kind):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise tampered(kind) from None


def aead_open(key, data, sealed, kind):
    """nonce 24 ‖ ciphertext and tag"""
    if len(sealed) < 24 + 16:
        raise tampered(kind)
    try:
        return na.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed[24:], data, sealed[:24], key)
    except CryptoError:
        raise tampered(kind) from None


CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def base32(data):
    value, out = int.from_bytes(data, "big"), ""
    for _ in range(-(-len(data) * 8 // 5)):
        out = CROCKFORD[value & 31] + out
        value >>= 5
    return out


def unbase64url(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# ---------------------------------------------------------------- texts of keys (section 3)


def parse_key_file(text):
    match = re.fullmatch(r"rotate-key-(\d+):([A-Za-z0-9_-]*)\r?\n?", text)
    if match is None:
        raise Refused("unlock-failed", "key-file-text")
    if match[1] != "1":
        raise Refused("unlock-failed", "key-file-version")
    if len(match[2]) != 48:
        raise Refused("unlock-failed", "key-file-length")
    data = unbase64url(match[2])
    if H(16, data[:32], b"rotate/1 key file check")[:4] != data[32:]:
        raise Refused("unlock-failed", "key-file-check")
    return data[:32]


def recovery_check(key):
    return base32(H(16, key, b"rotate/1 recovery check")[:5])[:4]


def parse_recovery(text):
    compact = re.sub(r"[\s-]", "", text.upper())
    if not compact.startswith("RR1"):
        raise Refused("usage", "recovery-prefix")
    digits = re.sub("[IL]", "1", compact[3:]).replace("O", "0")
    if len(digits) != 36:
        raise Refused("usage", "recovery-length")
    value = 0
    for digit in digits[:32]:
        if digit not in CROCKFORD:
            raise Refused("usage", "recovery-digit")
        value = value << 5 | CROCKFORD.index(digit)
    key = value.to_bytes(20, "big")
    if recovery_check(key) != digits[32:]:
        raise Refused("usage", "recovery-check")
    return key


def parse_recipient(text):
    text = text.strip()
    if text.startswith("rotate-key-"):
        raise Refused("usage", "recipient-private")
    if not text.startswith("rp1-"):
        raise Refused("usage", "recipient-prefix")
    encoded = text[4:]
    if len(encoded) != 48:
        raise Refused("usage", "recipient-length")
    if re.fullmatch(r"[A-Za-z0-9_-]+", encoded) is None:
        raise Refused("usage", "recipient-digit")
    data = unbase64url(encoded)
    if H(16, data[:32], b"rotate/1 recipient check")[:4] != data[32:]:
        raise Refused("usage", "recipient-check")
    try:
        if na.crypto_scalarmult(bytes([8]) + bytes(30) + b"\x40", data[:32]) == bytes(32):
            raise Refused("usage", "recipient-point")
    except (CryptoError, RuntimeError):
        raise Refused("usage", "recipient-point") from None
    return data[:32]


# ---------------------------------------------------------------- unlockers (sections 3 and 4)

PASSPHRASE, KEY_FILE, RECIPIENT, RECOVERY = 1, 2, 3, 4


def holder(kek):
    """KEK → (pk, sk, psk, commit key)"""
    pk, sk = na.crypto_box_seed_keypair(kdf(kek, 1, b"unlock/1"))
    return pk, sk, kdf(kek, 2, b"unlock/1"), kdf(kek, 3, b"unlock/1")


def kek_of(kind, key):
    names = {KEY_FILE: b"rotate/1 key-file", RECIPIENT: b"rotate/1 recipient", RECOVERY: b"rotate/1 recovery"}
    return H(32, key, names[kind])


def kek_of_passphrase(passphrase, salt, kib, passes):
    data = unicodedata.normalize("NFC", passphrase).encode()
    return na.crypto_pwhash_alg(32, data, salt, passes, kib * 1024, na.crypto_pwhash_ALG_ARGON2ID13)


def passphrase_params(params):
    fields = Reader(params, "kdf-params")
    salt, kib, passes = fields.raw(16), fields.number(4), fields.number(4)
    fields.end()
    if not 64 * 1024 <= kib <= 1024 * 1024 or not 2 <= passes <= 10:
        raise tampered("kdf-cost")
    return salt, kib, passes


def commitment(commit_key, vault, stanza):
    return H(32, vault + stanza["id"] + bytes([stanza["kind"]]) + stanza["params"], commit_key)


def wrap_data(vault, identity, epoch):
    return b"rotate/1 wrap" + vault + identity + struct.pack(">I", epoch)


def open_box(vault, epoch, stanza, pk, sk, psk):
    try:
        inner = na.crypto_box_seal_open(stanza["box"], pk, sk)
    except (CryptoError, TypeError, ValueError, RuntimeError):
        raise tampered("box") from None
    root = aead_open(psk, wrap_data(vault, stanza["id"], epoch), inner, "box")
    if len(root) != 32:
        raise tampered("box")
    return root


def secret_for(unlock, stanza):
    how, value = unlock
    if how == PASSPHRASE:
        return holder(kek_of_passphrase(value, *passphrase_params(stanza["params"])))
    if stanza["kind"] != RECIPIENT:
        return holder(kek_of(how, value))
    pk, sk, _, _ = holder(kek_of(RECIPIENT, value))
    return pk, sk, bytes(32), H(32, pk, b"rotate/1 recipient commit")


def unlock_root(header, unlock):
    """The root key; `unlock` = (kind, secret)."""
    tried = 0
    for stanza in header["stanzas"]:
        if stanza["kind"] != unlock[0] and not (unlock[0] == KEY_FILE and stanza["kind"] == RECIPIENT):
            continue
        tried += 1
        pk, sk, psk, commit_key = secret_for(unlock, stanza)
        if commitment(commit_key, header["vault"], stanza) == stanza["commit"]:
            return open_box(header["vault"], header["epoch"], stanza, pk, sk, psk)
    raise Refused("unlock-failed", "wrong-key" if tried else "no-such-unlocker")


# ---------------------------------------------------------------- header and keyring (section 4)


def parse_header(stored):
    if stored is None:
        raise tampered("header-missing")
    fields = Reader(stored, "header-layout")
    if fields.raw(8) != b"rotate/1":
        raise tampered("header-magic")
    form, minimum = fields.number(2), fields.number(2)
    if minimum > FORMAT or form < minimum:
        raise tampered("header-format")
    header = {"format": form, "minimum": minimum, "vault": fields.raw(16), "epoch": fields.number(4), "fingerprint": fields.raw(32)}
    header["stanzas"] = [
        {"id": fields.raw(16), "kind": fields.number(1), "params": fields.short(), "commit": fields.raw(32), "box": fields.short()}
        for _ in range(fields.number(1))
    ]
    header["keyring"] = fields.long()
    header["mac"] = fields.raw(32)
    fields.end()
    header["stored"] = stored
    return header


def decode_keyring(data):
    fields = Reader(data, "keyring-layout")
    if fields.number(1) != 1:
        raise tampered("keyring-version")
    ring = {"index": fields.raw(32), "fingerprint": fields.raw(32), "seed": fields.raw(32)}
    ring["audit"] = {epoch: key for epoch, key in [(fields.number(4), fields.raw(32)) for _ in range(fields.number(2))]}
    ring["roots"] = {epoch: key for epoch, key in [(fields.number(4), fields.raw(32)) for _ in range(fields.number(2))]}
    ring["unlockers"] = []
    for _ in range(fields.number(2)):
        one = {"id": fields.raw(16), "kind": fields.number(1), "created": fields.number(6), "pk": fields.raw(32), "psk": fields.raw(32)}
        if not 1 <= one["kind"] <= 4:
            raise tampered("keyring-kind")
        ring["unlockers"].append(one)
    fields.end()
    return ring


def unseal_header(header, root):
    """Keyring, once fingerprint and MAC say that the root key is the right one and nothing was changed."""
    if kdf(root, 2, b"rotate/1") != header["fingerprint"]:
        raise tampered("fingerprint")
    if H(32, header["stored"][:-32], kdf(root, 1, b"rotate/1")) != header["mac"]:
        raise tampered("header-mac")
    data = associated(header["vault"], 0, header["epoch"], 0)
    return decode_keyring(aead_open(kdf(root, 3, b"rotate/1"), data, header["keyring"], "keyring-seal"))


# ---------------------------------------------------------------- sealed rows (section 5)

HEAD, NODE, OBJ, AUDIT = 1, 2, 3, 4


def associated(vault, table, epoch, row):
    return b"rotate/1" + bytes([table]) + vault + struct.pack(">IQ", epoch, row)


def nonce_of(nonce_key, random, counter, data, plaintext):
    return H(24, random + struct.pack(">I", counter) + data + plaintext, nonce_key)


class Keys:
    def __init__(self, vault, epoch, root, ring):
        self.vault, self.epoch, self.ring = vault, epoch, ring
        self.roots = {**ring["roots"], epoch: root}

    def row_key(self, table, epoch):
        if table == AUDIT:
            return self.ring["audit"].get(epoch)
        root = self.roots.get(epoch)
        return None if root is None else kdf(root, 4 if table == OBJ else 5, b"rotate/1")

    def open(self, table, row, stored):
        if len(stored) < 4 + 24 + 16:
            raise tampered("row-length")
        epoch = int.from_bytes(stored[:4], "big")
        key = self.row_key(table, epoch)
        if key is None:
            raise tampered("row-epoch")
        return aead_open(key, associated(self.vault, table, epoch, row), stored[4:], "row-seal")


def bucket_size(length):
    size = 64
    while size < length:
        size *= 2
    return size


def decode_object(plaintext):
    fields = Reader(plaintext, "object-layout")
    kind = fields.number(1)
    if not 1 <= kind <= 6:
        raise tampered("object-kind")
    owner, sub, body = text_of(fields.short(), "object-layout"), fields.number(4), fields.long()
    if len(plaintext) != bucket_size(fields.at) or any(fields.rest()):
        raise tampered("padding")
    return kind, owner, sub, body


class SecretBytes:
    def __init__(self, data):
        self.data = data


LOOKALIKE = re.compile(r"\$+secret")


def decode_record(body):
    fields = Reader(body, "record-layout")
    text = fields.long()
    secrets = [fields.long() for _ in range(fields.number(2))]
    fields.end()
    used = 0

    def revive(value):
        nonlocal used
        if isinstance(value, list):
            return [revive(one) for one in value]
        if not isinstance(value, dict):
            return value
        sole = next(iter(value)) if len(value) == 1 else None
        if sole == "$secret":
            # The k-th in the order of the text is number k.
            if type(value[sole]) is not int or value[sole] != used or used >= len(secrets):
                raise tampered("record-secret")
            used += 1
            return SecretBytes(secrets[used - 1])
        if sole is not None and LOOKALIKE.fullmatch(sole):
            return {sole[1:]: revive(value[sole])}
        return {key: revive(inner) for key, inner in value.items()}

    def refuse(_):
        raise ValueError("no such number in JSON")

    try:
        parsed = json.loads(text.decode("utf-8"), parse_constant=refuse)
    except ValueError:
        raise tampered("record-json") from None
    if not isinstance(parsed, dict) or list(parsed) != ["r"]:
        raise tampered("record-json")
    value = revive(parsed["r"])
    if used != len(secrets):
        raise tampered("record-secret")
    return value


def object_key(index_key, kind, owner, sub):
    name = owner.encode()
    bucket = H(16, name, index_key)
    rest = H(16, bytes([kind]) + struct.pack(">I", sub) + name, index_key)
    return (int.from_bytes(bucket[:2], "big") >> 2) << 50 | int.from_bytes(rest[:8], "big") & (1 << 50) - 1


# ---------------------------------------------------------------- tree and state root (section 6)


def decode_leaf(leaf, plaintext):
    fields = Reader(plaintext, "leaf-layout")
    if fields.number(2) != leaf:
        raise tampered("node-number")
    count, entries, previous = fields.number(2), [], -1
    for _ in range(count):
        entry = {"key": fields.number(8), "kind": fields.number(1), "ref": fields.raw(16), "wake": fields.number(6)}
        if entry["key"] <= previous or entry["key"] >> 50 != leaf:
            raise tampered("leaf-order")
        if not 1 <= entry["kind"] <= 6:
            raise tampered("leaf-kind")
        previous = entry["key"]
        entries.append(entry)
    check_padding(fields, max(4, -(-count // 4) * 4) - count, 31)
    return entries


def decode_mid(mid, plaintext):
    fields = Reader(plaintext, "mid-layout")
    if fields.number(2) != 16384 + mid:
        raise tampered("node-number")
    count, children, previous = fields.number(1), {}, -1
    for _ in range(count):
        position = fields.number(1)
        if position <= previous or position >= 128:
            raise tampered("mid-order")
        previous = position
        children[position] = {"ref": fields.raw(16), "wake": fields.number(6)}
    check_padding(fields, max(8, -(-count // 8) * 8) - count, 23)
    return children


def check_padding(fields, missing, size):
    rest = fields.rest()
    if len(rest) != missing * size or any(rest):
        raise tampered("padding")


def decode_root(plaintext):
    fields = Reader(plaintext, "root-layout")
    if fields.number(1) != 1:
        raise tampered("root-version")
    root = {"commit": fields.number(6), "tags": [fields.raw(8) for _ in range(8)], "highestTime": fields.number(6)}
    root.update(auditCount=fields.number(6), auditHash=fields.raw(32), auditBase=fields.number(6), auditBaseHash=fields.raw(32))
    root.update(objects=fields.number(6), nodes=fields.number(6), runs=fields.number(6))
    root.update(pages=fields.number(4), freePages=fields.number(4), headerHash=fields.raw(32), cursor=fields.number(4), flags=fields.number(4))
    root["mids"] = {}
    for mid in range(128):
        child = {"ref": fields.raw(16), "wake": fields.number(6)}
        if any(child["ref"]):
            root["mids"][mid] = child
        elif child["wake"] != NEVER:
            raise tampered("root-layout")
    fields.end()
    return root


# ---------------------------------------------------------------- audit (sections 7 and 8)

ZERO = bytes(32)
STUB = 64


def chain(previous, stored):
    sealed = stored[32:]
    return H(32, previous + stored[:32] + (sealed if len(stored) == STUB else H(32, sealed)))


def audit_leaf(salt, text):
    return H(32, salt + text, b"rotate/1 audit leaf")


def open_audit(keys, seq, stored):
    """(event, hash before it)"""
    plaintext = keys.open(AUDIT, seq, stored[32:])
    fields = Reader(plaintext, "audit-layout")
    previous, salt, text = fields.raw(32), fields.raw(16), fields.long()
    if audit_leaf(salt, text) != stored[:32]:
        raise tampered("audit-leaf")
    event = json.loads(text_of(text, "audit-layout"))
    if event["seq"] != seq:
        raise tampered("audit-number")
    return event, previous


def compact(value):
    """JSON as JavaScript writes it, of what needs no number but integers."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def unbase64(text, kind):
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Refused("malformed", kind) from None
    if base64.b64encode(data).decode() != text:
        raise Refused("malformed", kind)
    return data


def key_id(name, pk):
    return hashlib.sha256(name.encode() + b"\n\x01" + pk).digest()[:4]


NAME = re.compile(r"rotate/[\x21-\x2a\x2c-\x7e]{1,100}")


def verifier_of(vault_id, seed):
    pk, _ = na.crypto_sign_seed_keypair(seed)
    name = f"rotate/{vault_id}"
    return f"{name}+{key_id(name, pk).hex()}+{base64.b64encode(bytes([1]) + pk).decode()}"


def parse_verifier(text):
    match = re.fullmatch(r"([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]{1,100})", text)
    if match is None or NAME.fullmatch(match[1]) is None:
        raise Refused("malformed", "verifier-text")
    data = unbase64(match[3], "verifier-text")
    if len(data) != 33 or data[0] != 1:
        raise Refused("malformed", "verifier-text")
    if key_id(match[1], data[1:]).hex() != match[2]:
        raise Refused("malformed", "verifier-id")
    return match[1], bytes.fromhex(match[2]), data[1:]


def parse_claim(text):
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] != "" or NAME.fullmatch(lines[0]) is None or "" in lines[:-1]:
        raise Refused("malformed", "note-text")
    if re.fullmatch(r"0|[1-9][0-9]{0,14}", lines[1]) is None or len(unbase64(lines[2], "note-text")) != 32:
        raise Refused("malformed", "note-text")
    return {"origin": lines[0], "size": int(lines[1]), "hash": unbase64(lines[2], "note-text"), "more": lines[3:-1], "text": text}


def parse_note(note):
    if len(note) > 64 * 1024 or re.search(r"[\x00-\x09\x0b-\x1f\x7f]", note):
        raise Refused("malformed", "note-text")
    at = note.rfind("\n\n")
    if at < 0 or not note.endswith("\n"):
        raise Refused("malformed", "note-signature")
    claim = parse_claim(note[: at + 1])
    signatures = []
    for line in note[at + 2 : -1].split("\n"):
        match = re.fullmatch(r"— ([^+\s]+) ([A-Za-z0-9+/=]+)", line)
        if match is None:
            raise Refused("malformed", "note-signature")
        data = unbase64(match[2], "note-signature")
        if len(data) < 5:
            raise Refused("malformed", "note-signature")
        signatures.append((match[1], data[:4], data[4:]))
    return claim, signatures


def parse_line(line):
    parts = line.split(" ")
    if len(parts) != 4 or len(line) > 400:
        raise Refused("malformed", "line-text")
    claim = parse_claim("\n".join(parts[:3]) + "\n")
    data = unbase64(parts[3], "note-signature")
    if len(data) < 5:
        raise Refused("malformed", "note-signature")
    return claim, [(parts[0], data[:4], data[4:])]


def check_signed(claim, signatures, verifier):
    name, identity, pk = verifier
    if claim["origin"] != name:
        raise tampered("note-origin")
    ours = [signature for of, found, signature in signatures if of == name and found == identity]
    if len(ours) != 1 or len(ours[0]) != 64:
        raise tampered("note-unsigned")
    try:
        na.crypto_sign_open(ours[0] + claim["text"].encode(), pk)
    except CryptoError:
        raise tampered("note-unsigned") from None


STATEMENT = [
    r"time (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)",
    r"export 1 (jsonl|csv)",
    r"from (\d{1,15}) ([A-Za-z0-9+/]{43}=)",
    r"to (\d{1,15}) ([A-Za-z0-9+/]{43}=)",
    r"shown (\d{1,15}) withheld (\d{1,15})",
    r"filter (\{.*\})",
    r"digest ([A-Za-z0-9+/]{43}=)",
]


def iso_to_ms(text):
    import datetime

    when = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc)
    return round(when.timestamp() * 1000)


def verify_export(data, verifier):
    """A JSONL export with nothing but the verifier key. Returns (from, to, shown, withheld)."""
    lines = data.split(b"\n")
    if lines.pop() != b"" or not lines:
        raise tampered("export-cut")
    try:
        last = json.loads(lines[-1])
    except ValueError:
        raise tampered("export-line") from None
    if not isinstance(last, dict) or list(last) != ["note"]:
        raise tampered("export-cut")
    try:
        claim, signatures = parse_note(last["note"])
    except Refused:
        raise tampered("export-note") from None
    try:
        check_signed(claim, signatures, verifier)
    except Refused as refused:
        raise tampered(refused.kind.replace("note", "export")) from None
    found = [re.fullmatch(pattern, line) for pattern, line in zip(STATEMENT, claim["more"])]
    if len(claim["more"]) != len(STATEMENT) or None in found or found[1][1] != "jsonl":
        raise tampered("export-note")
    first, end = int(found[2][1]), int(found[3][1])
    head, counts, seq = unbase64(found[2][2], "x"), [0, 0], first
    for line in lines[:-1]:
        try:
            one = json.loads(line)
        except ValueError:
            raise tampered("export-line") from None
        if compact(one).encode() != line:
            raise tampered("export-line")
        if "leaf" in one:
            leaf = bytes.fromhex(one["leaf"])
            counts[1] += 1
        else:
            names = ["seq", "at", "action", "path", "actor", "triggeredBy", "status", "runId", "metadata"]
            event = {name: one[name] for name in names}
            event["at"] = iso_to_ms(event["at"])
            leaf = audit_leaf(bytes.fromhex(one["salt"]), compact(event).encode())
            counts[0] += 1
        seq += 1
        if one["seq"] != seq:
            raise tampered("export-order")
        head = H(32, head + leaf + bytes.fromhex(one["sealed"]))
        if head.hex() != one["hash"]:
            raise tampered("export-chain")
    if seq != end or head != unbase64(found[3][2], "x"):
        raise tampered("export-order")
    if counts != [int(found[4][1]), int(found[4][2])]:
        raise tampered("export-counts")
    if H(32, b"".join(line + b"\n" for line in lines[:-1])) != unbase64(found[6][1], "x"):
        raise tampered("export-digest")
    return [first, end, *counts]


# ---------------------------------------------------------------- high-water records (section 9)


def mark_name(vault, path):
    return H(16, b"rotate/1 mark" + vault + path.encode())


def parse_mark(record, index_key, name):
    key = H(32, b"rotate/1 marks", index_key)
    if H(16, name + record[:32], key) != record[32:]:
        raise tampered("mark-mac")
    fields = Reader(record, "mark-layout")
    out = {"trusted": fields.number(1) == 1, "tag": fields.raw(3), "commit": fields.number(6), "auditCount": fields.number(6)}
    return {**out, "auditHash": fields.raw(16)}


# ---------------------------------------------------------------- the container (section 2)

SCHEMA = [f"CREATE TABLE {table}(i INTEGER PRIMARY KEY, b BLOB)" for table in ("head", "node", "obj", "audit")]
FIXED = [
    (16, bytes([0x10, 0, 1, 1, 0, 64, 32, 32])),
    (44, bytes([0, 0, 0, 4])),
    (52, bytes([0, 0, 0, 0, 0, 0, 0, 1])),
    (64, bytes(4)),
    (68, b"rotV"),
    (72, bytes(20)),
]


def check_container(path):
    """The first hundred bytes; returns the format that the file claims."""
    with open(path, "rb") as file:
        first = file.read(100)
    if len(first) < 100 or first[:16] != b"SQLite format 3\0":
        raise tampered("container")
    for at, wanted in FIXED:
        if first[at : at + len(wanted)] != wanted:
            raise tampered("container")
    pages, trunk, free = struct.unpack(">I", first[28:32]) + struct.unpack(">II", first[32:40])
    if (trunk == 0) != (free == 0) or trunk > pages:
        raise tampered("container")
    return int.from_bytes(first[60:64], "big")


class Vault:
    """A whole vault, read and verified. Everything wrong with it is `Refused`."""

    def __init__(self, path, unlock):
        claimed = check_container(path)
        self.db = sqlite3.connect(f"file:{path.replace('?', '%3f').replace('#', '%23')}?mode=ro", uri=True)
        try:
            self.db.execute("BEGIN")
            if claimed != FORMAT:
                self.check_format(claimed)
            rows = self.db.execute("SELECT type, sql FROM sqlite_schema ORDER BY rowid").fetchall()
            if rows != [("table", sql) for sql in SCHEMA]:
                raise tampered("schema")
            self.open(unlock)
            self.objects = list(self.walk())
            self.events = list(self.trail())
        except (sqlite3.DatabaseError, sqlite3.OperationalError):
            raise tampered("sqlite") from None
        finally:
            self.db.close()

    def row(self, table, number):
        signed = number - 2**64 if number >= 2**63 else number
        found = self.db.execute(f"SELECT b FROM {table} WHERE i=?", (signed,)).fetchone()
        if found is None:
            return None
        return found[0] if isinstance(found[0], bytes) else b""

    def check_format(self, claimed):
        stored = self.row("head", 1) or b""
        if len(stored) < 12 or int.from_bytes(stored[8:10], "big") != claimed:
            raise tampered("format-number")
        if int.from_bytes(stored[10:12], "big") > FORMAT:
            raise Refused("failed", "newer-format")

    def open(self, unlock):
        self.header = header = parse_header(self.row("head", 1))
        root_key = unlock_root(header, unlock)
        self.keys = Keys(header["vault"], header["epoch"], root_key, unseal_header(header, root_key))
        stored = self.row("head", 2)
        if stored is None:
            raise tampered("root-missing")
        # Only the newest key counts for the state root, even during a rekey.
        if len(stored) >= 4 and int.from_bytes(stored[:4], "big") != header["epoch"]:
            raise tampered("root-epoch")
        self.root = decode_root(self.keys.open(HEAD, 2, stored))
        if self.root["headerHash"] != H(32, header["stored"]):
            raise tampered("root-header")

    def child(self, table, number, ref):
        stored = self.row(table, number)
        if stored is None or H(16, stored) != ref:
            raise tampered("object-ref" if table == "obj" else "node-ref")
        return self.keys.open(OBJ if table == "obj" else NODE, number, stored)

    def walk(self):
        count = 0
        for mid, found in self.root["mids"].items():
            children = decode_mid(mid, self.child("node", 16384 + mid, found["ref"]))
            if found["wake"] != min((one["wake"] for one in children.values()), default=NEVER):
                raise tampered("wake")
            for position, child in children.items():
                leaf = mid * 128 + position
                entries = decode_leaf(leaf, self.child("node", leaf, child["ref"]))
                if child["wake"] != min((one["wake"] for one in entries), default=NEVER):
                    raise tampered("wake")
                for entry in entries:
                    kind, owner, sub, body = decode_object(self.child("obj", entry["key"], entry["ref"]))
                    if kind != entry["kind"] or object_key(self.keys.ring["index"], kind, owner, sub) != entry["key"]:
                        raise tampered("object-place")
                    count += 1
                    yield {"kind": kind, "owner": owner, "sub": sub, "wake": entry["wake"], "record": decode_record(body)}
        if count != self.root["objects"]:
            raise tampered("object-count")

    def trail(self):
        root, head, start = self.root, ZERO, 0
        base = self.row("audit", root["auditBase"]) if root["auditBase"] > 0 else None
        if root["auditBase"] > 0 and (base is None or len(base) != STUB):
            # A salvaged vault: the chain begins at its base, rows below prove nothing.
            head, start = root["auditBaseHash"], root["auditBase"]
        for seq in range(start + 1, root["auditCount"] + 1):
            stored = self.row("audit", seq)
            if stored is None:
                raise tampered("audit-missing")
            if len(stored) != STUB if seq <= root["auditBase"] else len(stored) < 32 + 28 + 16 + 256:
                raise tampered("audit-missing")
            head = chain(head, stored)
            if seq == root["auditBase"] and head != root["auditBaseHash"]:
                raise tampered("audit-chain")
        if head != root["auditHash"]:
            raise tampered("audit-chain")
        head = root["auditBaseHash"]
        for seq in range(root["auditBase"] + 1, root["auditCount"] + 1):
            stored = self.row("audit", seq)
            event, previous = open_audit(self.keys, seq, stored)
            if previous != head:
                raise tampered("audit-chain")
            head = chain(head, stored)
            yield event

    def summary(self):
        return {
            "vault": "vlt_" + base32(self.header["vault"]),
            "epoch": self.header["epoch"],
            "commit": self.root["commit"],
            "highestTime": self.root["highestTime"],
            "flags": self.root["flags"],
            "unlockers": [["unl_" + base32(one["id"]), one["kind"]] for one in self.keys.ring["unlockers"]],
            "objects": sorted(
                ([one["kind"], one["owner"], one["sub"], one["wake"], shown(one["record"])] for one in self.objects),
                key=lambda one: (one[0], one[1].encode(), one[2]),
            ),
            "auditCount": self.root["auditCount"],
            "auditBase": self.root["auditBase"],
            "auditHash": self.root["auditHash"].hex(),
            "events": [shown(event) for event in self.events],
            "verifier": verifier_of("vlt_" + base32(self.header["vault"]), self.keys.ring["seed"]),
        }


def shown(value):
    """A record in which secrets and the order of keys can be seen: objects as lists of pairs."""
    if isinstance(value, SecretBytes):
        return ["secret", value.data.hex()]
    if isinstance(value, list):
        return ["list", *map(shown, value)]
    if isinstance(value, dict):
        return ["object", *([key, shown(inner)] for key, inner in value.items())]
    return value


# ---------------------------------------------------------------- vectors


def keys_of(given):
    ring = {"index": bytes(32), "fingerprint": bytes(32), "seed": bytes(32), "roots": {}, "audit": {}}
    ring["roots"] = {int(epoch): bytes.fromhex(key) for epoch, key in given["roots"].items()}
    ring["audit"] = {int(epoch): bytes.fromhex(key) for epoch, key in given["audit"].items()}
    epoch = given["epoch"]
    return Keys(bytes.fromhex(given["vault"]), epoch, ring["roots"][epoch], ring)


TABLES = {"keyring": 0, "head": 1, "node": 2, "obj": 3, "audit": 4}
KINDS = {"passphrase": PASSPHRASE, "key-file": KEY_FILE, "recipient": RECIPIENT, "recovery": RECOVERY}


def unlock_of(given):
    kind = KINDS[given["kind"]]
    return kind, given["passphrase"] if kind == PASSPHRASE else bytes.fromhex(given["key"])


def hexed(value):
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): hexed(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [hexed(one) for one in value]
    return value


def shown_stanza(stanza):
    return [stanza["id"], stanza["kind"], stanza["params"], stanza["commit"], stanza["box"]]


def with_edits(given, vaults):
    """The file of a vault vector, with its edits, in a directory of its own."""
    directory = tempfile.mkdtemp(prefix="rotate-reader-")
    path = os.path.join(directory, "vault.db")
    data = bytearray(zlib.decompress(base64.b64decode(vaults[given["vault"]]["file"])))
    edits = given.get("edits", [])
    with open(path, "wb") as file:
        file.write(data)
    db = sqlite3.connect(path)
    for edit in edits:
        if "sql" in edit:
            db.execute(edit["sql"])
        elif "row" in edit:
            table, number = edit["row"]
            stored = bytearray(db.execute(f"SELECT b FROM {table} WHERE i=?", (int(number),)).fetchone()[0])
            stored[edit["at"] if edit["at"] >= 0 else len(stored) + edit["at"]] ^= edit["xor"]
            db.execute(f"UPDATE {table} SET b=? WHERE i=?", (bytes(stored), int(number)))
        elif "put" in edit:
            table, number = edit["put"]
            db.execute(f"INSERT OR REPLACE INTO {table}(i,b) VALUES(?,?)", (int(number), bytes.fromhex(edit["bytes"])))
        elif "from" in edit:
            other = with_edits({"vault": edit["from"]}, vaults)
            db.commit()
            db.execute("ATTACH ? AS other", (other,))
            for table, number in edit["rows"]:
                db.execute(f"INSERT OR REPLACE INTO main.{table}(i,b) SELECT i,b FROM other.{table} WHERE i=?", (int(number),))
            db.commit()
            db.execute("DETACH other")
            remove(other)
    db.commit()
    db.close()
    with open(path, "rb") as file:
        data = bytearray(file.read())
    for edit in edits:
        if "byte" in edit:
            data[edit["byte"]] ^= edit["xor"]
        elif "cut" in edit:
            del data[edit["cut"] :]
    with open(path, "wb") as file:
        file.write(data)
    return path


def remove(path):
    for name in (path, path + "-journal"):
        if os.path.exists(name):
            os.remove(name)
    os.rmdir(os.path.dirname(path))


def run(op, given, vaults):
    """The answer of one vector."""
    b = {name: bytes.fromhex(value) for name, value in given.items() if isinstance(value, str) and re.fullmatch("([0-9a-f]{2})*", value)}
    if op == "kdf":
        return kdf(b["key"], given["id"], given["context"].encode())
    if op == "kek":
        return kek_of(KINDS[given["kind"]], b["key"])
    if op == "kek-passphrase":
        return kek_of_passphrase(given["text"], b["salt"], given["kib"], given["passes"])
    if op == "holder":
        pk, _, psk, commit_key = holder(b["kek"])
        return {"pk": pk, "psk": psk, "commitKey": commit_key}
    if op == "key-file":
        return parse_key_file(given["text"])
    if op == "recovery":
        return parse_recovery(given["text"])
    if op == "recipient":
        return parse_recipient(given["text"])
    if op == "commitment":
        stanza = {"id": b["id"], "kind": given["kind"], "params": b["params"]}
        return commitment(b["commitKey"], b["vault"], stanza)
    if op == "header":
        header = parse_header(b["stored"])
        fields = [header[name] for name in ("format", "minimum", "vault", "epoch", "fingerprint")]
        return [*fields, [shown_stanza(stanza) for stanza in header["stanzas"]]]
    if op == "unlock":
        return unlock_root(parse_header(b["stored"]), unlock_of(given["unlock"]))
    if op == "unseal":
        return unseal_header(parse_header(b["stored"]), b["root"])
    if op == "keyring":
        return decode_keyring(b["plaintext"])
    if op == "associated":
        return associated(b["vault"], TABLES[given["table"]], given["epoch"], int(given["row"]))
    if op == "wrap-data":
        return wrap_data(b["vault"], b["id"], given["epoch"])
    if op == "nonce":
        return nonce_of(b["key"], b["random"], given["counter"], b["data"], b["plaintext"])
    if op == "row":
        return keys_of(given["keys"]).open(TABLES[given["table"]], int(given["row"]), b["stored"])
    if op == "bucket":
        return bucket_size(given["length"])
    if op == "object":
        return decode_object(b["plaintext"])
    if op == "record":
        return shown(decode_record(b["body"]))
    if op == "index":
        return str(object_key(b["key"], given["kind"], given["owner"], given["sub"]))
    if op == "ref":
        return H(16, b["stored"])
    if op == "leaf":
        return [[str(one["key"]), one["kind"], one["ref"], one["wake"]] for one in decode_leaf(given["node"], b["plaintext"])]
    if op == "mid":
        return [[position, one["ref"], one["wake"]] for position, one in decode_mid(given["node"], b["plaintext"]).items()]
    if op == "root":
        root = decode_root(b["plaintext"])
        root["mids"] = [[mid, one["ref"], one["wake"]] for mid, one in root["mids"].items()]
        return root
    if op == "audit-leaf":
        return audit_leaf(b["salt"], given["text"].encode())
    if op == "audit":
        event, previous = open_audit(keys_of(given["keys"]), given["seq"], b["stored"])
        return [shown(event), previous]
    if op == "chain":
        return chain(b["previous"], b["stored"])
    if op == "verifier":
        name, identity, pk = parse_verifier(given["text"])
        return [name, identity, pk]
    if op in ("note", "line"):
        claim, signatures = (parse_note if op == "note" else parse_line)(given["text"])
        check_signed(claim, signatures, parse_verifier(given["verifier"]))
        return [claim["origin"], claim["size"], claim["hash"], claim["more"]]
    if op == "export":
        return verify_export(given["text"].encode(), parse_verifier(given["verifier"]))
    if op == "mark":
        return parse_mark(b["record"], b["index"], mark_name(b["vault"], given["path"]))
    if op == "vault":
        path = with_edits(given, vaults)
        try:
            return Vault(path, unlock_of(given["unlock"])).summary()
        finally:
            remove(path)
    raise ValueError(f"unknown operation {op}")


def check_vectors(directory):
    files = sorted(name for name in os.listdir(directory) if name.endswith(".json"))
    loaded = {}
    for name in files:
        with open(os.path.join(directory, name), encoding="utf-8") as file:
            loaded[name] = json.load(file)
    vaults = {key: value for one in loaded.values() for key, value in one.get("vaults", {}).items()}
    total, wrong = 0, []
    for name, one in loaded.items():
        for vector in one["vectors"]:
            total += 1
            try:
                found = {"gives": hexed(run(vector["op"], vector["in"], vaults))}
            except Refused as refused:
                found = {"refused": {"code": refused.code, "kind": refused.kind}}
            except Exception as error:  # a crash is a difference too
                found = {"crash": repr(error)}
            wanted = {key: vector[key] for key in ("gives", "refused") if key in vector}
            if found != wanted:
                wrong.append({"file": name, "name": vector["name"], "wanted": wanted, "found": found})
    return {"vectors": total, "wrong": wrong}


def main(arguments):
    if arguments[:1] == ["vectors"] and len(arguments) == 2:
        report = check_vectors(arguments[1])
        print(json.dumps(report))
        return 1 if report["wrong"] else 0
    if arguments[:1] == ["open"] and len(arguments) == 4:
        with open(arguments[3], encoding="utf-8", newline="") as file:
            text = file.read()
        try:
            if arguments[2] == "--key-file":
                unlock = KEY_FILE, parse_key_file(text)
            elif arguments[2] == "--recovery-file":
                unlock = RECOVERY, parse_recovery(text)
            else:
                unlock = PASSPHRASE, text.rstrip("\n")
            print(json.dumps(Vault(arguments[1], unlock).summary()))
            return 0
        except Refused as refused:
            print(json.dumps({"refused": {"code": refused.code, "kind": refused.kind}}))
            return 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
