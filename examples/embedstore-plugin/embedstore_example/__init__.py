"""An encoder, a data set reader and a head for embedstore."""
