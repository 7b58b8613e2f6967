"""What the server keeps on disk: uploaded and produced files, batches and the results of their lines."""
