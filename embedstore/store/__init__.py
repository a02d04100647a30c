"""The store of embeddings: layout, writer, reader, verification, export."""
