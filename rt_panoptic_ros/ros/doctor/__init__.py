"""`rt-panoptic doctor`: looks at a running graph and says in plain words why nothing, or too little, arrives."""
