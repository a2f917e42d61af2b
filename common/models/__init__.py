"""The tables: RAGFlow's under RAGFlow's names, Ragkeeper's own under ``rk_``."""
