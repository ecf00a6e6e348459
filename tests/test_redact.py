import pytest

from levit_batch.redact import redact


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("s3://key:secret@bucket/x", "s3://***@bucket/x"),
        ("https://h/x.parquet?X-Amz-Signature=abc&y=1 is gone", "https://h/x.parquet?*** is gone"),
        ("token hf_abcdefghijklmnop!", "token hf_***!"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer ***"),
        ("AKIAABCDEFGHIJKLMNOP", "AKIA***"),
        ("data/*.parquet?", "data/*.parquet?"),
        ("facebook/levit-128S", "facebook/levit-128S"),
    ],
)
def test_strings(text, clean):
    assert redact(text) == clean


def test_values_of_secret_keys_anywhere():
    found = redact({"a": [{"api_key": "x", "n": 1}], "token": None, "hf_token": "t", "webhook": "https://h/s"})
    assert found == {"a": [{"api_key": "***", "n": 1}], "token": None, "hf_token": "***", "webhook": "***"}
