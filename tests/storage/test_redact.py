import pytest

from levit_batch.storage.redact import is_masked, public, public_path, redact, stored_address, without_credentials
from levit_batch.storage.url import shown

TOKEN = "hf_" + "a1B2c3" * 6


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("s3://key:secret@bucket/x", "s3://***@bucket/x"),
        ("https://h/x.parquet?X-Amz-Signature=abc&y=1 is gone", "https://h/x.parquet?*** is gone"),
        (f"token {TOKEN}!", "token hf_***!"),
        ("data/hf_imagenet and data/hf_catsdogs2", "data/hf_imagenet and data/hf_catsdogs2"),
        ("s3://key:p@ss:w/o?r#d@bucket/x is gone", "s3://***@bucket/x is gone"),
        ("'s3://key:half/a", "'s3://***"),
        ("https://me:pa/ss@host/x, https://host:8080/a@b.jpg", "https://***@host/x, https://host:8080/a@b.jpg"),
        ("s3://bucket/a@b.parquet", "s3://bucket/a@b.parquet"),
        ("hf://datasets/me/set@0123/a.parquet", "hf://datasets/me/set@0123/a.parquet"),
        ("s3://bucket/day-?.parquet", "s3://bucket/day-?.parquet"),
        ("s3://bucket/x?region=eu-1", "s3://bucket/x?region=eu-1"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer ***"),
        ("AKIAABCDEFGHIJKLMNOP", "AKIA***"),
        ("data/*.parquet?", "data/*.parquet?"),
        ("facebook/levit-128S", "facebook/levit-128S"),
    ],
)
def test_strings(text, clean):
    assert redact(text) == clean


def test_values_of_secret_keys_anywhere():
    assert redact({"notify": {"command": ["curl", "-H", "X-Key: 1"], "on": ["drift"]}}) == {
        "notify": {"command": ["***"], "on": ["drift"]}
    }
    found = redact({"a": [{"api_key": "x", "n": 1}], "token": None, "hf_token": "t", "webhook": "https://h/s"})
    assert found == {"a": [{"api_key": "***", "n": 1}], "token": None, "hf_token": "***", "webhook": "***"}


@pytest.mark.parametrize("password", ["pa:ss", "pa[ss", "pa/ss", "pa?ss", "pa#ss", "p@ss", "p/a:s?s#"])
@pytest.mark.parametrize("kind", ["s3", "https"])
def test_a_password_is_in_nothing_that_is_shown_stored_or_compared(kind, password):
    url = f"{kind}://me:{password}@place/a@b.parquet"
    assert shown(url) == without_credentials(url) == f"{kind}://place/a@b.parquet"
    assert password not in redact(url) and password not in stored_address(url) and is_masked(stored_address(url))


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://h/x?X-Amz-Date=1&X-Amz-Signature=ab&part=2", "https://h/x?part=2"),
        ("https://h/x?sv=1&se=2&sp=r&sig=ab", "https://h/x"),
        ("https://h/x?token=ab", "https://h/x"),
        ("https://h/x?part=2", "https://h/x?part=2"),
        ("s3://b/x-?.parquet", "s3://b/x-?.parquet"),
    ],
)
def test_a_signature_is_no_part_of_an_address(url, clean):
    assert without_credentials(url) == clean
    assert stored_address(url) == (url if url == clean else "https://h/x?***")


@pytest.mark.parametrize(
    "address", ["/data/hf_imagenet", "s3://b/a@b?region=eu", "https://h/x?part=2", "hf://datasets/a/b@c/x", "photos/*.png"]
)
def test_an_address_without_a_secret_is_stored_as_it_is(address):
    assert stored_address(address) == address and not is_masked(address)


def test_what_may_be_a_secret_by_its_look_is_not_stored():
    assert stored_address("https://h/x?code=a1b2c3d4e5f6a7b8c9") == "https://h/x?***"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/home/me/photos", "…/photos"), ("/home/me/photos/*/*.png", "…/photos/*/*.png"), ("~/x/y", "…/y"),
        ("file:///home/me/x", "…/x"), ("photos/x", "photos/x"), ("s3://b/x/y", "s3://b/x/y"),
    ],
)  # fmt: skip
def test_a_page_names_no_private_folder(path, said):
    assert public_path(path) == said
    text = f"cannot be read: {path}, (relative to /home/me/work) and https://h/a/b"
    assert "/home" not in public(text) and "https://h/a/b" in public(text)
