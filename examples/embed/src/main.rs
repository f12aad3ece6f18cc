//! Builds an image from inside a program that has threads of its own, shows what happens, and exports the result.
//!
//! `cargo run -p embed [STATE_DIR [OUT_DIR]]`

#![expect(clippy::print_stdout, reason = "it is a program, and short")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use builder_core::{BuildRequest, Builder, ContextSource, DockerfileSource, Event, ImageForm, Output};

const DOCKERFILE: &str = "FROM scratch\nCOPY <<EOF /etc/motd\nbuilt by a program\nEOF\nLABEL made.by=embed\n";

fn main() -> Result<(), builder_core::Error> {
    // First of all, before any thread: in the build process this call does not return.
    builder_core::init();

    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let state_dir = args.next().unwrap_or_else(|| PathBuf::from("out/embed-state"));
    let dest = args.next().unwrap_or_else(|| PathBuf::from("out/embed"));

    let source = DockerfileSource { name: "inline".to_owned(), text: DOCKERFILE.to_owned(), ignore: None };
    let mut request = BuildRequest::new(source, ContextSource::Empty);
    request.tags.push("embedded:latest".to_owned());
    let (names, form) = (Vec::new(), ImageForm::default());
    request.outputs.push(Output::OciLayout { dest: dest.clone(), names, form });

    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Whatever else the program does meanwhile.
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let result = Builder::open(state_dir).and_then(|builder| builder.build(&request, &mut show));
        done.store(true, Ordering::Relaxed);
        println!("{} in {}", result?.digest, dest.display());
        Ok(())
    })
}

fn show(event: Event) {
    match event {
        Event::Plan { steps } => println!("{} steps", steps.len()),
        Event::StepCached { step } => println!("step {} was there", step.0),
        Event::StepFinished { step, duration_ms } => println!("step {} took {duration_ms} ms", step.0),
        Event::Exported { output, .. } => println!("wrote {output}"),
        _ => {} // There are more kinds, and there will be others.
    }
}
