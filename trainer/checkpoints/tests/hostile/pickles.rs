//! Pickles that name what they should not, that grow, that never end, that contradict themselves.

use super::Case;
use super::forge::{cat, dict, int, long, pickle, storage, tensor, text, torch_legacy, torch_zip, tuple};

pub(crate) fn cases(marker: &str) -> Vec<Case> {
    let mut cases = execution(marker);
    cases.extend(growth());
    cases.extend(depth());
    cases.extend(tensors());
    cases.extend(streams());
    cases
}

/// Each would make the file `marker` if Python loaded it.
fn execution(marker: &str) -> Vec<Case> {
    let command = text(&format!("touch {marker}"));
    let arguments = tuple(std::slice::from_ref(&command));
    let system = b"cposix\nsystem\n";
    let reduce = pickle(&[system, &arguments, b"R"]);
    let stack_global = cat(&[b"\x80\x04\x8c\x02os\x8c\x06system\x93", &arguments, b"R."]);
    let state = cat(&[b"}", &text("__setstate__"), system, b"s"]);
    vec![
        Case::new("GLOBAL and REDUCE", reduce.clone(), "`posix.system`"),
        Case::new("STACK_GLOBAL", stack_global, "`os.system`"),
        Case::new("INST", pickle(&[b"(", &command, b"iposix\nsystem\n"]), "`posix.system`"),
        Case::new("OBJ", pickle(&[b"(", system, &command, b"o"]), "`posix.system`"),
        Case::new("NEWOBJ", pickle(&[b"csubprocess\nPopen\n", &arguments, b"\x81"]), "`subprocess.Popen`"),
        Case::new("NEWOBJ_EX", pickle(&[b"ccollections\nOrderedDict\n)}\x92"]), "NEWOBJ_EX"),
        Case::new("eval", pickle(&[b"cbuiltins\neval\n", &arguments, b"R"]), "`builtins.eval`"),
        Case::new("getattr", pickle(&[b"cbuiltins\ngetattr\n", &arguments, b"R"]), "`builtins.getattr`"),
        Case::new("torch.load", pickle(&[b"ctorch.storage\n_load_from_bytes\n", &arguments, b"R"]), "_load_from_bytes"),
        Case::new(
            "a method",
            pickle(&[b"ccollections\nOrderedDict.fromkeys\n", &arguments, b"R"]),
            "OrderedDict.fromkeys",
        ),
        Case::new("__setstate__", pickle(&[b"ccollections\nOrderedDict\n)R", &state, b"b"]), "`posix.system`"),
        Case::new("BUILD of a class", pickle(&[b"ccollections\nOrderedDict\n}b"]), "state"),
        Case::new("BUILD of a tuple", pickle(&[b")}b"]), "state"),
        Case::new("EXT1", pickle(&[b"\x82\x01"]), "extension registry"),
        Case::new("PERSID", pickle(&[b"P0\n"]), "PERSID"),
        Case::new("BINPERSID", pickle(&[b")Q"]), "BINPERSID"),
        Case::new("NEXT_BUFFER", pickle(&[b"\x97"]), "NEXT_BUFFER"),
        Case::new("a type called", pickle(&[b"cbuiltins\nint\n)R"]), "stands for itself"),
        Case::new("a text called", pickle(&[&text("posix.system"), b")R"]), "a function"),
        Case::new(
            "a tensor's own function",
            torch_zip(&pickle(&[b"ctorch._tensor\n_rebuild_from_type_v2\n(", system, b"ctorch\nTensor\n)}tR"])),
            "`posix.system`",
        ),
        Case::new("in an archive", torch_zip(&reduce), "`posix.system`"),
        Case::new("in a legacy file", torch_legacy(&reduce, b""), "`posix.system`"),
        Case::new(
            "in a legacy file's properties",
            cat(&[b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", &pickle(&[&int(1001)]), &reduce]),
            "`posix.system`",
        ),
    ]
}

fn growth() -> Vec<Case> {
    let huge = |opcode: &[u8], length: &[u8]| pickle(&[opcode, length]);
    // Each list holds the one before ten times.
    let laughs = cat(&[b"]q\x000", &b"](h\0h\0h\0h\0h\0h\0h\0h\0h\0h\0eq\x000".repeat(100), b"h\0"]);
    let pairs = cat(&[b"](", &b"NN\x86".repeat(100_000), b"eq\0"]);
    let copies = cat(&[&pairs, b"0ccollections\nOrderedDict\nq\x010", &b"h\x01h\0\x85R".repeat(1000)]);
    let memo: Vec<u8> = (0..100_000_u32).flat_map(|i| cat(&[b"r", &(u32::MAX - i).to_le_bytes()])).collect();
    let one = tensor(storage("0", int(4)), int(0), tuple(&[int(1)]), tuple(&[int(1)]));
    let rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n";
    let arguments = &one[rebuild.len()..one.len() - 1];
    let many = cat(&[rebuild, b"q\0", arguments, b"q\x01", &b"h\0h\x01R".repeat(150_000)]);
    // Fifteen dictionaries in one another below keys of 4,000 bytes; the innermost has that key many times.
    let key = text(&"k".repeat(4000));
    let below_each_other =
        cat(&[&key, b"q\x010", &b"}h\x01".repeat(14), b"}(", &b"h\x01N\x85".repeat(150_000), b"u", &b"s".repeat(14)]);
    let name = |length| text(&"n".repeat(length));
    vec![
        Case::new("long keys below each other", pickle(&[&below_each_other]), "no ResNet"),
        Case::new(
            "a class with a long name",
            cat(&[b"\x80\x04", &name(200), &name(200), b"\x93."]),
            "the name of a class",
        ),
        Case::new("LONG4", huge(b"\x8b", &i32::MAX.to_le_bytes()), "cut off"),
        Case::new("LONG4, negative", huge(b"\x8b", &(-1_i32).to_le_bytes()), "cut off"),
        Case::new("BINUNICODE", huge(b"X", &u32::MAX.to_le_bytes()), "cut off"),
        Case::new("BINUNICODE8", huge(b"\x8d", &(1_u64 << 60).to_le_bytes()), "cut off"),
        Case::new("BINBYTES8", huge(b"\x8e", &u64::MAX.to_le_bytes()), "cut off"),
        Case::new("BYTEARRAY8", huge(b"\x96", &(u64::MAX - 5).to_le_bytes()), "cut off"),
        Case::new("FRAME", huge(b"\x95", &u64::MAX.to_le_bytes()), "a value before it"),
        Case::new("a memo with holes", pickle(&[b"N", &memo]), "no ResNet"),
        Case::new("billion laughs", pickle(&[&laughs]), "no ResNet"),
        Case::new(
            "billion laughs in a network's place",
            pickle(&[b"}", &text("state_dict"), &laughs, b"s"]),
            "no ResNet",
        ),
        Case::new("copies of copies", pickle(&[&copies]), "more than 1000000 opcodes"),
        Case::new("opcodes", pickle(&[&b"]".repeat(2_000_000)]), "more than 1000000 opcodes"),
        Case::new("tensors", torch_zip(&pickle(&[&many])), "more than 100000 tensors"),
    ]
}

fn depth() -> Vec<Case> {
    const DEPTH: usize = 300_000;
    let lists = cat(&[&b"]".repeat(DEPTH), &b"a".repeat(DEPTH - 1)]);
    let dicts = cat(&[&b"}N".repeat(DEPTH), b"N", &b"s".repeat(DEPTH)]);
    vec![
        Case::new("nested lists", pickle(&[&lists]), "no ResNet"),
        Case::new("nested dictionaries", pickle(&[&dicts]), "no ResNet"),
        Case::new("nested tuples", pickle(&[b"N", &b"\x85".repeat(DEPTH)]), "no ResNet"),
        Case::new("marks", pickle(&[&b"(".repeat(DEPTH), b"N"]), "no ResNet"),
        Case::new("a list in itself", pickle(&[b"]q\0h\0a"]), "no ResNet"),
        Case::new("a dictionary in itself", pickle(&[b"}q\0", &text("state_dict"), b"h\0s"]), "no ResNet"),
        Case::new("a tuple in its list", pickle(&[b"]q\0h\0\x85q\x01a"]), "no ResNet"),
    ]
}

fn tensors() -> Vec<Case> {
    let one = || tuple(&[int(1)]);
    let file = |tensor: Vec<u8>| torch_zip(&pickle(&[&dict("conv1.weight", &tensor)]));
    let of_four = |offset, size, stride| file(tensor(storage("0", int(4)), offset, size, stride));
    let nan = cat(&[b"G", &f64::NAN.to_be_bytes()]);
    let array = |shape: Vec<u8>, kind: &str, data: &[u8]| {
        let kind = cat(&[b"cnumpy\ndtype\n", &tuple(&[text(kind)]), b"R"]);
        let new = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n)NtR";
        let state =
            tuple(&[int(1), shape, kind, b"\x89".to_vec(), cat(&[b"B", &(data.len() as u32).to_le_bytes(), data])]);
        pickle(&[&dict("conv1.weight", &cat(&[new, &state, b"b"]))])
    };
    vec![
        Case::new("a view past its storage", of_four(int(0), tuple(&[int(5)]), one()), "past its storage"),
        Case::new("an offset past its storage", of_four(int(4), one(), one()), "past its storage"),
        Case::new("a negative offset", of_four(int(-1), one(), one()), "its offset is -1"),
        Case::new("a negative size", of_four(int(0), tuple(&[int(-3)]), one()), "its size is -3"),
        Case::new("a negative stride", of_four(int(0), tuple(&[int(2)]), tuple(&[int(-1)])), "its stride is -1"),
        Case::new("a size that is no number", of_four(int(0), tuple(&[nan]), one()), "not made of integers"),
        Case::new("a size that is no tuple", of_four(int(0), text("1"), one()), "not a tuple"),
        Case::new("a thousand axes", of_four(int(0), tuple(&vec![int(1); 1000]), one()), "16 axes"),
        Case::new("strides for other axes", of_four(int(0), tuple(&[int(1), int(1)]), one()), "its strides are"),
        Case::new(
            "a stride that overflows",
            of_four(int(0), tuple(&[int(3)]), tuple(&[long(i64::MAX)])),
            "past its storage",
        ),
        Case::new("a terabyte of one value", of_four(int(0), tuple(&[long(1 << 40)]), tuple(&[int(0)])), "repeats"),
        Case::new(
            "more elements than numbers",
            of_four(int(0), tuple(&vec![long(1 << 40); 3]), tuple(&vec![int(0); 3])),
            "its size is",
        ),
        Case::new(
            "a storage of another length",
            file(tensor(storage("0", int(5)), int(0), one(), one())),
            "has 16 bytes",
        ),
        Case::new("a storage of negative length", file(storage("0", int(-1))), "persistent_load"),
        Case::new(
            "a storage of impossible length",
            file(tensor(storage("0", long(i64::MAX)), int(0), one(), one())),
            "has 16 bytes",
        ),
        Case::new("a storage that is not there", file(storage("7", int(4))), "no entry `archive/data/7`"),
        Case::new("a storage outside", file(storage("../../../etc/passwd", int(4))), "no entry"),
        Case::new("a tensor as a key", torch_zip(&pickle(&[b"}", &storage("0", int(4)), b"Ns"])), "no ResNet"),
        Case::new("an array larger than its data", array(tuple(&[int(1 << 20)]), "f4", b"1234"), "other data"),
        Case::new("an array of impossible size", array(tuple(&vec![long(1 << 40); 2]), "f4", b"1234"), "its shape is"),
        Case::new("an array of objects", array(one(), "O8", b"12345678"), "`O8`"),
        Case::new("an array of a big-endian type", array(one(), ">f4", b"1234"), "big-endian"),
        Case::new(
            "an array without data",
            pickle(&[b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n)NtR"]),
            "no ResNet",
        ),
    ]
}

fn streams() -> Vec<Case> {
    let object = pickle(&[&dict("x", &tensor(storage("a", int(4)), int(0), tuple(&[int(4)]), tuple(&[int(1)])))]);
    let keys = |keys: &[u8]| pickle(&[b"](", keys, b"e"]);
    let legacy =
        |keys_pickle: Vec<u8>, len: u64| torch_legacy(&object, &cat(&[&keys_pickle, &len.to_le_bytes(), &[0; 16]]));
    vec![
        Case::new("a legacy storage longer than the file", legacy(keys(&text("a")), 1 << 40), "cut off"),
        Case::new("a legacy storage of impossible length", legacy(keys(&text("a")), u64::MAX), "longer than any file"),
        Case::new("a legacy storage shorter than its tensor", legacy(keys(&text("a")), 3), "has 12 bytes"),
        Case::new("a legacy storage that is not listed", legacy(keys(b""), 4), "not in the file's list"),
        Case::new("a legacy storage without a tensor", legacy(keys(&text("b")), 4), "belongs to no tensor"),
        Case::new("a legacy list of numbers", legacy(keys(&int(1)), 4), "other than keys"),
        Case::new("an unknown opcode", pickle(&[b"\xff"]), "no opcode"),
        Case::new("an unknown protocol", b"\x80\x09N.".to_vec(), "protocol 9"),
        Case::new("nothing on the stack", pickle(&[b""]), "a value before it"),
        Case::new("nothing above the mark", pickle(&[b"N("]), "a value before it"),
        Case::new("no mark", pickle(&[b"t"]), "a mark"),
        Case::new("keys without values", pickle(&[b"}(Nu"]), "a value for each key"),
        Case::new("a memo that is empty", pickle(&[b"h\0"]), "memo"),
        Case::new("text that is none", pickle(&[b"X\x01\0\0\0\xff"]), "UTF-8"),
        Case::new("bytes that are none", b"(dp0\nS'a\n.".to_vec(), "quotes"),
    ]
}
