//! The stack machine: one opcode after the other until `STOP`.
//!
//! Opcodes and what they do to the stack are those of Python's `pickletools`, protocols 0 to 5.

use std::collections::HashMap;

use super::globals::Global;
use super::graph::{StringData, StringValue};
use super::text::{integer, little_endian_integer, raw_unicode, unquoted};
use super::{Fault, Graph, Limits, PickleError, Value};
use crate::source::Cursor;

/// Longest name of a class, with its module.
const MAX_GLOBAL_BYTES: usize = 256;

/// Meaning of persistent ids in the file that the pickle is part of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PersistentIds {
    /// A storage of PyTorch: `('storage', type, key, location, length)`.
    Storages,
    /// Nothing: the file has none.
    Refused,
}

/// A pickle that is being read.
pub(super) struct Machine<'c, 's> {
    cursor: &'c mut Cursor<'s>,
    pub(super) graph: Graph,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    pub(super) limits: Limits,
    pub(super) persistent_ids: PersistentIds,
    work: u64,
}

/// Reads one pickle, up to and with its `STOP`; returns its value and all that it refers to.
///
/// # Errors
/// If it is not a whole pickle, asks for anything but tensors and plain containers, or is larger
/// than the limits.
pub(crate) fn run(
    cursor: &mut Cursor<'_>,
    persistent_ids: PersistentIds,
    limits: Limits,
) -> Result<(Graph, Value), PickleError> {
    let mut machine = Machine {
        cursor,
        graph: Graph::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        limits,
        persistent_ids,
        work: 0,
    };
    loop {
        let at = machine.cursor.position();
        match machine.step() {
            Ok(None) => {}
            Ok(Some(value)) => return Ok((machine.graph, value)),
            Err(fault) => return Err(PickleError { at, fault }),
        }
    }
}

/// `INT` writes booleans as numbers with a leading zero.
const FALSE_LINE: &[u8] = b"00";
const TRUE_LINE: &[u8] = b"01";

impl Machine<'_, '_> {
    /// Does the next opcode; returns the pickle's value when it was `STOP`.
    fn step(&mut self) -> Result<Option<Value>, Fault> {
        self.spend(1)?;
        let opcode = self.cursor.byte()?;
        match opcode {
            b'.' => return self.pop("STOP").map(Some),
            0x80 => {
                let version = self.cursor.byte()?;
                if version > 5 {
                    return Err(Fault::Opcode(format!("protocol {version} is not known; 0 to 5 are")));
                }
            }
            // A frame's length is of use to who reads a stream in pieces.
            0x95 => drop(self.cursor.array::<8>()?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => self.pop_or_mark()?,
            b'1' => drop(self.pop_to_mark("POP_MARK")?),
            b'2' => {
                let top = self.top("DUP")?;
                self.stack.push(top);
            }
            b'N' | 0x88 | 0x89 | b'I' | b'J' | b'K' | b'M' | b'L' | 0x8a | 0x8b | b'F' | b'G' => self.number(opcode)?,
            b'S' | b'T' | b'U' | b'B' | b'C' | 0x8e | 0x96 | b'V' | b'X' | 0x8c | 0x8d => self.string(opcode)?,
            b'g' | b'h' | b'j' | b'p' | b'q' | b'r' | 0x94 => self.memo(opcode)?,
            b'c' | 0x93 | b'R' | b'b' | b'i' | b'o' | 0x81 | 0x92 | b'Q' => self.call(opcode)?,
            _ => self.container(opcode)?,
        }
        Ok(None)
    }

    fn number(&mut self, opcode: u8) -> Result<(), Fault> {
        let value = match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'I' | b'L' => match self.cursor.line()?.as_slice() {
                FALSE_LINE if opcode == b'I' => Value::Bool(false),
                TRUE_LINE if opcode == b'I' => Value::Bool(true),
                line => integer(line)?.map_or(Value::Opaque, Value::Int),
            },
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.cursor.array()?))),
            b'K' => Value::Int(i64::from(self.cursor.byte()?)),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.cursor.array()?))),
            b'G' => Value::Float(f64::from_be_bytes(self.cursor.array()?)),
            b'F' => {
                let line = self.cursor.line()?;
                let number = std::str::from_utf8(&line).ok().and_then(|text| text.trim().parse().ok());
                Value::Float(number.ok_or(Fault::Text("a number"))?)
            }
            _ => {
                let len = match opcode {
                    0x8a => u64::from(self.cursor.byte()?),
                    _ => self.length::<4>()?,
                };
                let bytes = self.cursor.bytes(len)?;
                little_endian_integer(&bytes).map_or(Value::Opaque, Value::Int)
            }
        };
        self.stack.push(value);
        Ok(())
    }

    fn string(&mut self, opcode: u8) -> Result<(), Fault> {
        let value = match opcode {
            b'S' => {
                let bytes = unquoted(&self.cursor.line()?)?;
                let text = kept_text(&bytes);
                StringValue { data: StringData::Unescaped(bytes.into()), text }
            }
            b'V' => {
                let text = raw_unicode(&self.cursor.line()?)?;
                let kept = kept_text(text.as_bytes());
                StringValue { data: StringData::UnescapedLatin1(text.into_bytes().into()), text: kept }
            }
            _ => {
                let len = match opcode {
                    b'U' | b'C' | 0x8c => u64::from(self.cursor.byte()?),
                    b'T' | b'B' | b'X' => self.length::<4>()?,
                    _ => self.length::<8>()?,
                };
                self.string_of(opcode, len)?
            }
        };
        let value = self.graph.add_string(value);
        self.stack.push(value);
        Ok(())
    }

    /// Strings with a length before them; what is not text stays in the file.
    fn string_of(&mut self, opcode: u8, len: u64) -> Result<StringValue, Fault> {
        let is_text = matches!(opcode, b'X' | 0x8c | 0x8d);
        // Python 2 wrote names as bytes.
        let may_be_text = is_text || matches!(opcode, b'T' | b'U');
        if !may_be_text || len > StringValue::MAX_TEXT {
            let range = self.cursor.skip(len)?;
            let data = if is_text { StringData::Latin1(range) } else { StringData::Raw(range) };
            return Ok(StringValue { data, text: None });
        }
        let start = self.cursor.position();
        let bytes = self.cursor.bytes(len)?;
        let text = kept_text(&bytes);
        if is_text && text.is_none() {
            return Err(Fault::Text("UTF-8 text"));
        }
        let range = start..start + len;
        let data = if is_text { StringData::Latin1(range) } else { StringData::Raw(range) };
        Ok(StringValue { data, text })
    }

    fn memo(&mut self, opcode: u8) -> Result<(), Fault> {
        let key = match opcode {
            b'g' | b'p' => {
                let key = integer(&self.cursor.line()?)?.and_then(|key| u64::try_from(key).ok());
                key.ok_or(Fault::Text("a number in the memo"))?
            }
            b'h' | b'q' => u64::from(self.cursor.byte()?),
            b'j' | b'r' => self.length::<4>()?,
            _ => self.memo.len() as u64,
        };
        if matches!(opcode, b'g' | b'h' | b'j') {
            let missing = Fault::Stack { opcode: "GET", expected: "a value put into the memo" };
            let value = *self.memo.get(&key).ok_or(missing)?;
            self.stack.push(value);
        } else {
            let top = self.top("PUT")?;
            self.memo.insert(key, top);
        }
        Ok(())
    }

    fn container(&mut self, opcode: u8) -> Result<(), Fault> {
        let value = match opcode {
            b')' => self.graph.add_tuple(Vec::new()),
            b't' => {
                let items = self.pop_to_mark("TUPLE")?;
                self.graph.add_tuple(items)
            }
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x85..=opcode {
                    items.push(self.pop("TUPLE")?);
                }
                items.reverse();
                self.graph.add_tuple(items)
            }
            b']' | 0x8f => self.graph.add_list(Vec::new()),
            b'l' | 0x91 => {
                let items = self.pop_to_mark("LIST")?;
                self.graph.add_list(items)
            }
            b'}' => self.graph.add_dict(Vec::new()),
            b'd' => {
                let entries = pairs(&self.pop_to_mark("DICT")?)?;
                self.graph.add_dict(entries)
            }
            b'a' => {
                let item = self.pop("APPEND")?;
                return self.append(vec![item]);
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark("APPENDS")?;
                return self.append(items);
            }
            b's' => {
                let (value, key) = (self.pop("SETITEM")?, self.pop("SETITEM")?);
                return self.set(vec![(key, value)]);
            }
            b'u' => {
                let entries = pairs(&self.pop_to_mark("SETITEMS")?)?;
                return self.set(entries);
            }
            opcode => return Err(refused_opcode(opcode)),
        };
        self.stack.push(value);
        Ok(())
    }

    fn append(&mut self, items: Vec<Value>) -> Result<(), Fault> {
        match self.top("APPEND")? {
            Value::List(id) => self.graph.items_mut(id).extend(items),
            Value::Opaque | Value::Foreign(_) => {}
            _ => return Err(Fault::Stack { opcode: "APPEND", expected: "a list" }),
        }
        Ok(())
    }

    fn set(&mut self, entries: Vec<(Value, Value)>) -> Result<(), Fault> {
        match self.top("SETITEM")? {
            Value::Dict(id) => self.graph.entries_mut(id).extend(entries),
            Value::Opaque | Value::Foreign(_) => {}
            _ => return Err(Fault::Stack { opcode: "SETITEM", expected: "a dictionary" }),
        }
        Ok(())
    }

    fn call(&mut self, opcode: u8) -> Result<(), Fault> {
        let value = match opcode {
            b'c' => self.global_line()?,
            0x93 => {
                let (name, module) = (self.pop("STACK_GLOBAL")?, self.pop("STACK_GLOBAL")?);
                let (Some(module), Some(name)) = (self.graph.text(module), self.graph.text(name)) else {
                    return Err(Fault::Stack { opcode: "STACK_GLOBAL", expected: "the names of a module and in it" });
                };
                let (module, name) = (module.to_owned(), name.to_owned());
                self.global(&module, &name)?
            }
            0x92 => {
                let (_named, arguments, callee) =
                    (self.pop("NEWOBJ_EX")?, self.pop("NEWOBJ_EX")?, self.pop("NEWOBJ_EX")?);
                match callee {
                    Value::Foreign(_) => self.call_value(callee, arguments)?,
                    _ => return Err(refused_opcode(opcode)),
                }
            }
            b'R' | 0x81 => {
                let (arguments, callee) = (self.pop("REDUCE")?, self.pop("REDUCE")?);
                self.call_value(callee, arguments)?
            }
            b'i' => {
                let callee = self.global_line()?;
                let arguments = self.pop_to_mark("INST")?;
                let arguments = self.graph.add_tuple(arguments);
                self.call_value(callee, arguments)?
            }
            b'o' => {
                let mut arguments = self.pop_to_mark("OBJ")?;
                if arguments.is_empty() {
                    return Err(Fault::Stack { opcode: "OBJ", expected: "a class" });
                }
                let callee = arguments.remove(0);
                let arguments = self.graph.add_tuple(arguments);
                self.call_value(callee, arguments)?
            }
            b'Q' => {
                let id = self.pop("BINPERSID")?;
                self.persistent(id)?
            }
            _ => {
                let state = self.pop("BUILD")?;
                let object = self.top("BUILD")?;
                return self.set_state(object, state);
            }
        };
        self.stack.push(value);
        Ok(())
    }

    /// The name that an opcode `GLOBAL` or `INST` gives in two lines.
    fn global_line(&mut self) -> Result<Value, Fault> {
        let (module, name) = (self.cursor.line()?, self.cursor.line()?);
        let text = |line| String::from_utf8(line).map_err(|_| Fault::Text("the name of a function"));
        self.global(&text(module)?, &text(name)?)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<Value, Fault> {
        // The memo repeats both in any combination, and each combination is kept.
        if module.len() + name.len() > MAX_GLOBAL_BYTES {
            return Err(Fault::Text("the name of a class"));
        }
        Ok(match Global::find(module, name)? {
            Some(global) => Value::Global(global),
            None => self.graph.add_foreign(&format!("{module}.{name}")),
        })
    }

    /// Counts work of which an opcode does more than one step.
    pub(super) fn spend(&mut self, work: u64) -> Result<(), Fault> {
        self.work = self.work.saturating_add(work);
        if self.work > self.limits.work { Err(self.too_much_work()) } else { Ok(()) }
    }

    /// Checks that this many elements may be copied.
    pub(super) fn can_spend(&self, work: usize) -> bool {
        self.work.saturating_add(work as u64) <= self.limits.work
    }

    pub(super) fn too_much_work(&self) -> Fault {
        Fault::Limit { what: "opcodes", limit: self.limits.work }
    }

    fn length<const N: usize>(&mut self) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&self.cursor.array::<N>()?);
        Ok(u64::from_le_bytes(bytes))
    }

    /// Removes the topmost value; values below the last mark stay.
    fn pop(&mut self, opcode: &'static str) -> Result<Value, Fault> {
        self.top(opcode)?;
        self.stack.pop().ok_or(Fault::Stack { opcode, expected: "a value" })
    }

    fn top(&self, opcode: &'static str) -> Result<Value, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let above = self.stack.get(floor..).and_then(<[Value]>::last);
        above.copied().ok_or(Fault::Stack { opcode, expected: "a value" })
    }

    fn pop_or_mark(&mut self) -> Result<(), Fault> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop("POP").map(drop)
    }

    fn pop_to_mark(&mut self, opcode: &'static str) -> Result<Vec<Value>, Fault> {
        let mark = self.marks.pop().ok_or(Fault::Stack { opcode, expected: "a mark" })?;
        Ok(self.stack.split_off(mark))
    }
}

fn pairs(items: &[Value]) -> Result<Vec<(Value, Value)>, Fault> {
    let (pairs, rest) = items.as_chunks();
    let uneven = Fault::Stack { opcode: "SETITEMS", expected: "a value for each key" };
    if rest.is_empty() { Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()) } else { Err(uneven) }
}

fn kept_text(bytes: &[u8]) -> Option<Box<str>> {
    let short = bytes.len() as u64 <= StringValue::MAX_TEXT;
    std::str::from_utf8(bytes).ok().filter(|_| short).map(Into::into)
}

fn refused_opcode(opcode: u8) -> Fault {
    Fault::Opcode(match opcode {
        b'P' => "it refers to something outside the file (PERSID)".to_owned(),
        0x82..=0x84 => {
            "it uses the extension registry (EXT), which stands for functions that it does not name".to_owned()
        }
        0x92 => "it creates an object with named arguments (NEWOBJ_EX)".to_owned(),
        0x97 | 0x98 => "its data are outside the pickle (NEXT_BUFFER)".to_owned(),
        _ => format!("the byte {opcode:#04x} is no opcode: this is not a pickle, or it is damaged"),
    })
}
