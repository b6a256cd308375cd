//! Which file describes which symbol.

use std::collections::HashMap;

use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// Descriptors by file and by symbol. No file declares an extension, which a test
/// guards, so there is no index of extensions.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// Encoded.
    files: Vec<Vec<u8>>,
    /// Positions in `files`.
    names: HashMap<String, usize>,
    symbols: HashMap<String, Symbol>,
    services: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Symbol {
    file: usize,
    is_message: bool,
}

impl Descriptors {
    /// Indexes every file.
    pub fn new(files: &FileDescriptorSet) -> Self {
        let mut all = Self::default();
        files.file.iter().for_each(|file| all.add_file(file));
        all.services.sort_unstable();
        all
    }

    /// The full names of all services, sorted.
    pub fn services(&self) -> &[String] {
        &self.services
    }

    /// The encoded file of this name.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        Some(&self.files[*self.names.get(name)?])
    }

    /// The encoded file that declares what has this full name.
    pub fn file_of_symbol(&self, symbol: &str) -> Option<&[u8]> {
        Some(&self.files[self.symbols.get(symbol)?.file])
    }

    /// Whether this is the full name of a message.
    pub fn is_message(&self, symbol: &str) -> bool {
        self.symbols.get(symbol).is_some_and(|symbol| symbol.is_message)
    }

    fn add_file(&mut self, file: &FileDescriptorProto) {
        self.names.insert(file.name().to_owned(), self.files.len());
        // Our protos have no custom options, so decoding and encoding loses nothing.
        self.files.push(file.encode_to_vec());
        let package = file.package();
        file.message_type.iter().for_each(|message| self.add_message(package, message));
        file.enum_type.iter().for_each(|of| self.add_enum(package, of));
        for service in &file.service {
            let name = self.add(package, service.name(), false);
            for method in &service.method {
                self.add(&name, method.name(), false);
            }
            self.services.push(name);
        }
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto) {
        let name = self.add(scope, message.name(), true);
        message.nested_type.iter().for_each(|nested| self.add_message(&name, nested));
        message.enum_type.iter().for_each(|of| self.add_enum(&name, of));
        let fields = message.field.iter().map(prost_types::FieldDescriptorProto::name);
        let oneofs = message.oneof_decl.iter().map(prost_types::OneofDescriptorProto::name);
        for member in fields.chain(oneofs) {
            self.add(&name, member, false);
        }
    }

    /// The values of an enum are siblings of the enum in protobuf's scoping rules.
    fn add_enum(&mut self, scope: &str, of: &EnumDescriptorProto) {
        self.add(scope, of.name(), false);
        for value in &of.value {
            self.add(scope, value.name(), false);
        }
    }

    /// Notes a symbol of the last file, and returns its full name.
    fn add(&mut self, scope: &str, name: &str, is_message: bool) -> String {
        let full_name = if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") };
        self.symbols.insert(full_name.clone(), Symbol { file: self.files.len() - 1, is_message });
        full_name
    }
}
