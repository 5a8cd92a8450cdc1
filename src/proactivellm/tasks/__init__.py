"""One file per task: data -> examples, prompt, quality metric."""
