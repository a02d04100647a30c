"""The secret behind pseudonyms, and the way back for whoever has it: key files, keyed ids, the owner's map."""
