fn main() {
    let number: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let text = itoa::Buffer::new().format(number).to_owned();
    println!("{text} has {} digits", text.len());
}
