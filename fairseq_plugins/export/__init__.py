"""Models for use: weights alone (``weights``), and CTranslate2's format (``export``)."""
