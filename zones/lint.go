package zones

func (c *compiler) lint() {}

func syntaxHint(text string) string { return "" }
