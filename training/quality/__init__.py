"""How well a model's videos show what their prompts say, and whether they stay so: the checker and the measurements."""
