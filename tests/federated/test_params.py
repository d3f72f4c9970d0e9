import hashlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from federated.errors import NotFiniteError, ShapeMismatchError, UnreadableParamsError
from federated.params import (
    Params,
    add,
    check_finite,
    check_same_shapes,
    from_bytes,
    params_sha256,
    subtract,
    to_bytes,
    under,
    views_into,
    with_prefix,
    zeros_like,
)
from tests.federated.builders import as_lists, make_params

READERS = (from_bytes, lambda content: views_into(memoryview(bytearray(content))))
PARAMS = make_params(bias=[1, 2], codes=[[1, 2], [3, 4], [5, 6]])

any_params = st.dictionaries(
    st.text("abc.", min_size=1),
    st.sampled_from([np.float32, np.float64, np.int64]).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0))
    ),
    max_size=4,
)


def safetensors_file(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


# Bytes


@settings(deadline=None, max_examples=50)
@given(any_params)
def test_parameters_come_back_from_their_bytes_as_they_were(params):
    content = to_bytes(params)
    back = from_bytes(content)
    views = views_into(memoryview(bytearray(content)))
    check_same_shapes(params, back)
    check_same_shapes(params, views)
    assert params_sha256(back) == params_sha256(views) == params_sha256(params)
    assert to_bytes(back) == to_bytes(views) == content


def test_equal_parameters_are_equal_bytes_whatever_their_order_in_memory():
    turned = {name: np.asfortranarray(PARAMS[name]) for name in ("codes", "bias")}
    assert list(turned) != list(PARAMS)
    assert to_bytes(turned) == to_bytes(PARAMS)
    assert params_sha256(turned) == params_sha256(PARAMS)


def test_a_file_holds_no_metadata():
    content = to_bytes(PARAMS)
    (length,) = struct.unpack("<Q", content[:8])
    assert sorted(json.loads(content[8 : 8 + length])) == ["bias", "codes"]


def test_a_truncated_file_is_unreadable_wherever_it_is_cut():
    content = to_bytes(PARAMS)
    assert as_lists(from_bytes(content)) == as_lists(PARAMS)
    for length in range(len(content)):
        for read in READERS:
            with pytest.raises(UnreadableParamsError, match="not a readable parameter file"):
                read(content[:length])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 a zip archive, as torch.save writes it",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 3) + b"abc",
        safetensors_file(
            {"a": {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}}, b"1234"
        ),
        safetensors_file({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
        safetensors_file({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}),
        safetensors_file({"a": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]}}),
        safetensors_file({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}, b"12"),
        safetensors_file({"a": {"dtype": "NONE", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        to_bytes(PARAMS) + b"more",
        safetensors_file([]),
        safetensors_file({"a": 1}),
        safetensors_file({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}),
        safetensors_file({"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 0]}}),
        safetensors_file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),
        struct.pack("<Q", 10**5) + b"[" * 10**5,
    ],
    ids=[
        "nothing",
        "another format",
        "a header longer than the file",
        "a header that is no JSON",
        "less data than the header says",
        "a shape that its data does not fill",
        "a size that overflows",
        "a dimension that overflows",
        "a type that NumPy has not",
        "no type",
        "more data than the header says",
        "a header that is a list",
        "a number for a parameter",
        "a negative dimension",
        "a text for a shape",
        "data that nothing names",
        "a header nested too deep",
    ],
)
def test_a_file_that_is_something_else_or_lies_is_unreadable(content):
    for read in READERS:
        with pytest.raises(UnreadableParamsError, match="not a readable parameter file"):
            read(content)


def test_views_change_with_their_buffer_and_need_not_be_aligned():
    buffer = bytearray(to_bytes(PARAMS))
    views = views_into(memoryview(buffer))
    buffer[-4:] = struct.pack("<f", 7)
    assert as_lists(views) == {"bias": [1, 2], "codes": [[1, 2], [3, 4], [5, 7]]}
    text = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'  # 54 bytes: one odd step
    odd = struct.pack("<Q", len(text) + 1) + text + b" " + struct.pack("<f", 7)
    assert as_lists(views_into(memoryview(bytearray(odd)))) == {"a": [7]}


# The hash


def test_the_hash_is_that_of_name_dtype_shape_and_raw_bytes_in_order_of_name():
    spelled_out = b"bias\0<f4\0(2,)\0" + struct.pack("<2f", 1, 2)
    spelled_out += b"codes\0<f4\0(3, 2)\0" + struct.pack("<6f", 1, 2, 3, 4, 5, 6)
    assert params_sha256(PARAMS) == hashlib.sha256(spelled_out).hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        {"Bias": PARAMS["bias"], "codes": PARAMS["codes"]},
        {"bias": PARAMS["bias"].astype(np.float64), "codes": PARAMS["codes"]},
        {"bias": PARAMS["bias"], "codes": PARAMS["codes"].reshape(2, 3)},
        {"bias": np.nextafter(PARAMS["bias"], np.float32(9)), "codes": PARAMS["codes"]},
        {"bias": PARAMS["bias"]},
    ],
    ids=["name", "dtype", "shape", "last bit", "one less"],
)
def test_other_parameters_have_another_hash(other):
    assert params_sha256(other) != params_sha256(PARAMS)


# What is refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"codes": None}, "'codes' is missing"),
        ({"extra": np.zeros(1)}, "'extra' is not part of the model"),
        (
            {"codes": np.zeros((2, 2), np.float32)},
            r"'codes' is float32\(2, 2\), the model's is float32\(3, 2\)",
        ),
        ({"bias": np.zeros(2)}, r"'bias' is float64\(2,\), the model's is float32\(2,\)"),
    ],
)
def test_parameters_of_another_model_are_refused_by_name(changes, words):
    given_params: Params = {
        name: value for name, value in (PARAMS | changes).items() if value is not None
    }
    check_same_shapes(PARAMS, PARAMS)
    with pytest.raises(ShapeMismatchError, match=words):
        check_same_shapes(PARAMS, given_params)
    with pytest.raises(ShapeMismatchError, match=words):
        subtract(PARAMS, given_params)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_name(value):
    check_finite(PARAMS)
    with pytest.raises(NotFiniteError, match="'codes'"):
        check_finite(PARAMS | make_params(codes=[[1, value]]))


def test_parameters_are_subtracted_name_by_name():
    difference = subtract(make_params(b=[3, 5], a=[1]), make_params(a=[4], b=[1, 1]))
    assert as_lists(difference) == {"a": [-3], "b": [2, 4]}
    assert difference["a"].dtype == np.float32


def test_several_sets_of_arrays_go_into_one_file_and_come_back_apart():
    both = with_prefix("m", PARAMS) | with_prefix("v", zeros_like(PARAMS))
    assert set(both) == {"m/bias", "m/codes", "v/bias", "v/codes"}
    back = from_bytes(to_bytes(both))
    assert as_lists(under("m", back)) == as_lists(PARAMS)
    assert as_lists(under("v", back)) == {"bias": [0, 0], "codes": [[0, 0], [0, 0], [0, 0]]}
    assert under("w", back) == {}


def test_parameters_are_added_name_by_name_and_only_to_their_like():
    assert as_lists(add(make_params(bias=[1, 2]), make_params(bias=[3, -2]))) == {"bias": [4, 0]}
    with pytest.raises(ShapeMismatchError):
        add(make_params(bias=[1, 2]), make_params(bias=[1]))
