//! Objects of the engine's own making: a class by reference and the state it is to have.

use bytes::Bytes;

use super::encode::{header, write_global, write_tuple, write_value};
use super::opcode as op;
use super::value::PickleValue;

/// The pickle of an instance of `module.class` made without `__init__`, with these attributes.
pub fn write_instance(module: &str, class: &str, attributes: &[(&str, PickleValue)]) -> Bytes {
    let mut out = header();
    write_global(&mut out, module, class);
    write_tuple(&mut out, &[]);
    out.push(op::NEWOBJ);
    let state = attributes.iter().map(|(name, value)| (PickleValue::from(*name), value.clone())).collect();
    write_value(&mut out, &PickleValue::Dict(state));
    out.push(op::BUILD);
    out.push(op::STOP);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_built_onto_a_bare_object() {
        let pickle = write_instance("m", "C", &[("a", 1.into())]);
        assert_eq!(&pickle[..], b"\x80\x04\x8c\x01m\x8c\x01C\x93)\x81}(\x8c\x01aK\x01ub.");
    }
}
