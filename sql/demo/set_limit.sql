SELECT awo_set_repository_limit($1, $2)
