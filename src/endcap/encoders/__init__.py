"""Content -> vectors: any encoder is a plug point (`core.protocols.Encoder`), and any encoder can be cached."""
