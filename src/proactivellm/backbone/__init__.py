"""A Hugging Face causal LM as it is: found, read, checked, prompted. No model file is forked."""
